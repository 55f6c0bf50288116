"""The smallest JSON value that fits a JSON schema, for engines without a model."""

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
