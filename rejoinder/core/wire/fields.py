"""Typed access to untrusted JSON. An invalid field raises a CallerError with the field's dotted path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rejoinder.core.errors import CallerError

Json = dict[str, Any]


def refuse(message: str, param: str, *, code: str = "invalid_value", remedy: str = "") -> CallerError:
    """Return the error to raise for an invalid field.

    Args:
        message: What is wrong.
        param: Dotted path of the field.
        code: `code` of the OpenAI Realtime error.
        remedy: What the client's developer can do about it.
    """
    return CallerError(message, remedy, code=code, param=param)


class Fields:
    """JSON object from a client, and its dotted path in the message.

    Unknown fields are ignored, because real clients send many. Every method that reads a field, except `raw`, raises
    CallerError if the field has the wrong type or an invalid value.
    """

    def __init__(self, value: object, path: str) -> None:
        """Wrap the JSON value at `path`; raise CallerError if the value is not an object."""
        if not isinstance(value, Mapping):
            raise refuse(f"{path} must be an object.", path, code="invalid_type")
        self._value: Mapping[str, Any] = value
        self.path = path

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def keys(self) -> frozenset[str]:
        """Return the names of the fields that are present."""
        return frozenset(self._value)

    def at(self, name: str) -> str:
        """Return the dotted path of the field `name` in the message, for errors."""
        return f"{self.path}.{name}" if self.path else name

    def raw(self, name: str) -> Any:
        """Return the value of the field without a check of its type; None if the field is absent."""
        return self._value.get(name)

    def child(self, name: str) -> Fields:
        """Return the object in the field `name`; an absent field counts as an empty object."""
        return Fields(self._value.get(name, {}), self.at(name))

    def text(self, name: str, default: str | None = None, *, limit: int = 100_000) -> str:
        """Return the string in a field, of at most `limit` characters; without a default the field is required."""
        value = self._value.get(name, default)
        if value is None:
            raise refuse(f"{self.at(name)} is required.", self.at(name), code="missing_required_parameter")
        if not isinstance(value, str):
            raise refuse(f"{self.at(name)} must be a string.", self.at(name), code="invalid_type")
        if len(value) > limit:
            raise refuse(f"{self.at(name)} is longer than {limit} characters.", self.at(name), remedy="Shorten it.")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return the string in a field; None if the field is absent or null."""
        return None if self._value.get(name) is None else self.text(name)

    def choice(self, name: str, allowed: Sequence[str], default: str | None = None) -> str:
        """Return the string in a field, which must be in `allowed`; without a default the field is required."""
        value = self.text(name, default)
        if value not in allowed:
            options = ", ".join(allowed)
            raise refuse(f"{self.at(name)} is {value[:80]!r}.", self.at(name), remedy=f"Use one of: {options}.")
        return value

    def texts(self, name: str, limit: int) -> list[str]:
        """Return the list in a field, of at most `limit` strings; an absent field or null counts as an empty list."""
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise refuse(f"{self.at(name)} must be a list of strings.", self.at(name), code="invalid_type")
        if len(value) > limit:
            raise refuse(f"{self.at(name)} has {len(value)} entries.", self.at(name), remedy=f"Send at most {limit}.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """Return the boolean in a field; `default` if the field is absent or null."""
        value = self._value.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise refuse(f"{self.at(name)} must be true or false.", self.at(name), code="invalid_type")
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """Return the number in a field, from `low` to `high`; without a default the field is required."""
        value = self._value.get(name, default)
        if value is None:
            raise refuse(f"{self.at(name)} is required.", self.at(name), code="missing_required_parameter")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refuse(f"{self.at(name)} must be a number.", self.at(name), code="invalid_type")
        if not low <= value <= high:
            raise refuse(f"{self.at(name)} is {str(value)[:80]}.", self.at(name), remedy=f"Use {low:g} to {high:g}.")
        return value

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """Return the whole number in a field, from `low` to `high`; without a default the field is required."""
        value = self.number(name, low, high, default)
        if value != int(value):
            raise refuse(f"{self.at(name)} must be a whole number.", self.at(name), code="invalid_type")
        return int(value)

    def items(self, name: str, limit: int) -> list[Fields]:
        """Return the list in a field, of at most `limit` objects; an absent field or null counts as an empty list."""
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise refuse(f"{self.at(name)} must be a list.", self.at(name), code="invalid_type")
        if len(value) > limit:
            raise refuse(f"{self.at(name)} has {len(value)} entries.", self.at(name), remedy=f"Send at most {limit}.")
        return [Fields(entry, f"{self.at(name)}[{index}]") for index, entry in enumerate(value)]

    def as_dict(self) -> Json:
        """Return a shallow copy of the JSON object as a dict."""
        return dict(self._value)
