"""JSON values and the JSON schemas of tool arguments: whether a value fits a schema, and a small value that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIMPLE: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": [], "null": None}


def smallest_value(schema: Mapping[str, Any]) -> Any:
    """Return a small value that fits a schema: required properties only, and the first option of an enumeration.

    Keywords that restrict a value further, such as `pattern`, are ignored.
    """
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for options in (schema.get("anyOf"), schema.get("oneOf")):
        if isinstance(options, list) and options and isinstance(options[0], Mapping):
            return smallest_value(options[0])
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    if kind in _SIMPLE:
        return _SIMPLE[str(kind)] if kind != "array" else []
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    required = schema.get("required", [])
    return {
        name: smallest_value(inner)
        for name, inner in properties.items()
        if name in required and isinstance(inner, Mapping)
    }


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return True if a value fits a schema, by the keywords of simple tools.

    These are `type`, `enum`, `const`, `properties`, `required` and `items`. Other keywords are ignored. A property that
    the schema does not name does not fit.
    """
    kind = schema.get("type")
    if isinstance(kind, str) and not _is_of_type(value, kind):
        return False
    if isinstance(kind, list) and not any(_is_of_type(value, one) for one in kind):
        return False
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return False
    if isinstance(value, dict) and "properties" in schema:
        properties = schema["properties"]
        complete = all(name in value for name in schema.get("required", ()))
        return complete and all(name in properties and fits(inner, properties[name]) for name, inner in value.items())
    if isinstance(value, list) and "items" in schema:
        return all(fits(inner, schema["items"]) for inner in value)
    return True


def _is_of_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES.get(kind, (object,)))
