"""Reduce a client's JSON schema to the part that every grammar engine supports.

llama.cpp generates without any grammar if it does not understand one, and says nothing about it. A schema is therefore
rewritten before it becomes a grammar. What is left out makes the grammar accept more, never less, except for
`additionalProperties`: an object with properties has no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEEPEST = 8
"""Maximum depth of nested schemas. Deeper ones accept any value. This also ends recursive references."""
MOST_SCHEMAS = 1000
"""Maximum number of schemas in one document, references resolved. Further ones accept any value."""
MOST_ITEMS = 64
"""Largest `minItems` and `maxItems` that are kept."""
_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
_FORMATS = ("date", "time", "date-time")


@dataclass(slots=True)
class _Document:
    """The whole schema, in which references are looked up, and how many more schemas of it are read."""

    root: Any
    left: int = MOST_SCHEMAS


def plain_schema(schema: Any) -> dict[str, Any]:
    """Return the supported part of a client's schema; an empty dict, which accepts any value, if there is none."""
    return _plain(schema, _Document(schema), 0)


def _plain(schema: Any, document: _Document, depth: int) -> dict[str, Any]:
    """Return the supported part of a schema that lies in `depth` other schemas of the document."""
    document.left -= 1
    if not isinstance(schema, Mapping) or depth > DEEPEST or document.left < 0:
        return {}
    if "$ref" in schema:
        return _plain(_referenced(document.root, schema["$ref"]), document, depth + 1)
    if _is_scalar(schema.get("const")) and "const" in schema:
        return {"const": schema["const"]}
    options = [value for value in _list(schema.get("enum")) if _is_scalar(value)]
    if options:
        return {"enum": options}
    alternatives = _list(schema.get("anyOf")) or _list(schema.get("oneOf"))
    if alternatives:
        return {"anyOf": [_plain(one, document, depth + 1) for one in alternatives]}
    kinds = [kind for kind in _list(schema.get("type")) or [schema.get("type")] if kind in _TYPES]
    if not kinds and isinstance(schema.get("properties"), Mapping):
        kinds = ["object"]
    found = [_of_type(kind, schema, document, depth) for kind in kinds]
    return found[0] if len(found) == 1 else {"anyOf": found} if found else {}


def _of_type(kind: str, schema: Mapping[str, Any], document: _Document, depth: int) -> dict[str, Any]:
    if kind == "object":
        return _object(schema, document, depth)
    if kind == "array":
        items = _plain(schema.get("items"), document, depth + 1)
        return {"type": "array", "items": items} | _bounds(schema, "minItems", "maxItems", least=0, most=MOST_ITEMS)
    if kind in ("integer", "number"):
        return {"type": kind} | _bounds(schema, "minimum", "maximum", least=-math.inf, most=math.inf)
    if kind == "string" and schema.get("format") in _FORMATS:
        return {"type": "string", "format": schema["format"]}
    return {"type": kind}


def _object(schema: Mapping[str, Any], document: _Document, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return {"type": "object"}
    return {
        "type": "object",
        "properties": {str(name): _plain(inner, document, depth + 1) for name, inner in properties.items()},
        "required": [name for name in _list(schema.get("required")) if name in properties],
        "additionalProperties": False,
    }


def _bounds(schema: Mapping[str, Any], low: str, high: str, *, least: float, most: float) -> dict[str, Any]:
    """Return the keywords `low` and `high` of a schema, if they are numbers from `least` to `most` in this order."""
    found = {
        name: schema[name]
        for name in (low, high)
        if isinstance(schema.get(name), int | float)
        and not isinstance(schema[name], bool)
        and math.isfinite(schema[name])
        and least <= schema[name] <= most
    }
    return {} if len(found) == 2 and found[low] > found[high] else found


def _referenced(root: Any, reference: Any) -> Any:
    """Return the schema to which a reference within the document leads; None if there is none."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = root
    for part in reference[2:].split("/"):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
