"""Read the `Attributes` section of a Google-style docstring."""

from __future__ import annotations

import inspect
import re


def attributes(cls: type) -> dict[str, str]:
    """Return the description of each documented attribute of a class, joined to one line.

    Raises:
        ValueError: The docstring has no `Attributes` section.
    """
    _, found, rest = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    if not found:
        raise ValueError(f"{cls.__name__} documents no attributes")
    section = inspect.cleandoc(re.split(r"\n(?=\S)", rest)[0])
    entries = re.split(r"\n(?=\S)", section)
    pairs = (entry.split(":", 1) for entry in entries)
    return {name.strip(): " ".join(text.split()) for name, text in pairs}
