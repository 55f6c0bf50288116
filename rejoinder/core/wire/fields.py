"""Reading untrusted JSON: every refusal is a CallerError that names the field's dotted path and the fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rejoinder.core.errors import CallerError

Json = dict[str, Any]


def refuse(message: str, param: str, *, code: str = "invalid_value", remedy: str = "") -> CallerError:
    """The error to raise for a bad field."""
    return CallerError(message, remedy, code=code, param=param)


class Fields:
    """One JSON object and the path to it; unknown fields are ignored, as real clients send many."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise refuse(f"{path} must be an object.", path, code="invalid_type")
        self._value: Mapping[str, Any] = value
        self.path = path

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def at(self, name: str) -> str:
        """Dotted path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def raw(self, name: str) -> Any:
        """The value as it came, or None."""
        return self._value.get(name)

    def child(self, name: str) -> Fields:
        """The object under `name`; absent counts as empty."""
        return Fields(self._value.get(name, {}), self.at(name))

    def text(self, name: str, default: str | None = None, *, limit: int = 100_000) -> str:
        """A string; required when no default is given."""
        value = self._value.get(name, default)
        if value is None:
            raise refuse(f"{self.at(name)} is required.", self.at(name), code="missing_required_parameter")
        if not isinstance(value, str):
            raise refuse(f"{self.at(name)} must be a string.", self.at(name), code="invalid_type")
        if len(value) > limit:
            raise refuse(f"{self.at(name)} is longer than {limit} characters.", self.at(name))
        return value

    def optional_text(self, name: str) -> str | None:
        """A string or None (absent or null)."""
        return None if self._value.get(name) is None else self.text(name)

    def choice(self, name: str, allowed: Sequence[str], default: str | None = None) -> str:
        """One of `allowed`."""
        value = self.text(name, default)
        if value not in allowed:
            options = ", ".join(allowed)
            raise refuse(f"{self.at(name)} is {value[:80]!r}.", self.at(name), remedy=f"Use one of: {options}.")
        return value

    def texts(self, name: str, limit: int) -> list[str]:
        """A list of at most `limit` strings; absent or null counts as empty."""
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise refuse(f"{self.at(name)} must be a list of strings.", self.at(name), code="invalid_type")
        if len(value) > limit:
            raise refuse(f"{self.at(name)} has {len(value)} entries.", self.at(name), remedy=f"Send at most {limit}.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A boolean; null counts as absent."""
        value = self._value.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise refuse(f"{self.at(name)} must be true or false.", self.at(name), code="invalid_type")
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """A finite number within [low, high]."""
        value = self._value.get(name, default)
        if value is None:
            raise refuse(f"{self.at(name)} is required.", self.at(name), code="missing_required_parameter")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refuse(f"{self.at(name)} must be a number.", self.at(name), code="invalid_type")
        if not low <= value <= high:
            raise refuse(f"{self.at(name)} is {str(value)[:80]}.", self.at(name), remedy=f"Use {low:g} to {high:g}.")
        return value

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number within [low, high]."""
        value = self.number(name, low, high, default)
        if value != int(value):
            raise refuse(f"{self.at(name)} must be a whole number.", self.at(name), code="invalid_type")
        return int(value)

    def items(self, name: str, limit: int) -> list[Fields]:
        """A list of at most `limit` objects; absent or null counts as empty."""
        value = self._value.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise refuse(f"{self.at(name)} must be a list.", self.at(name), code="invalid_type")
        if len(value) > limit:
            raise refuse(f"{self.at(name)} has {len(value)} entries.", self.at(name), remedy=f"Send at most {limit}.")
        return [Fields(entry, f"{self.at(name)}[{index}]") for index, entry in enumerate(value)]

    def as_dict(self) -> Json:
        """A shallow copy of the object."""
        return dict(self._value)
