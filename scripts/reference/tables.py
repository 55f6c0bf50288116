"""Functions for the reference pages: Markdown tables, anchors of headings, and texts from docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

SECTION_ENDS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table of `rows` without columns that are empty in every row.

    A column with the head "description" or "meaning" is always kept.
    """
    kept = [at for at, head in enumerate(heads) if any(row[at] for row in rows) or head in ("description", "meaning")]
    lines = [[heads[at] for at in kept], ["---"] * len(kept), *([row[at] for at in kept] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def one_line(text: str | None) -> str:
    """Return a text on one line, escaped for a table cell."""
    return escaped(" ".join((text or "").split()))


def escaped(text: str) -> str:
    """Return the text with `|` and `<` escaped for Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def prose(model: type) -> str:
    """Return a class's docstring up to its first section (`Args:`, `Attributes:`, ...), escaped for Markdown.

    If the class itself has no docstring, the result is "".
    """
    document = model.__dict__.get("__doc__") or ""
    if document.startswith(f"{model.__name__}("):
        return ""  # `dataclass` has generated this docstring from the signature, because the class has none
    lines = []
    for line in inspect.cleandoc(document).splitlines():
        if line.strip() in SECTION_ENDS:
            break
        lines.append(line)
    return escaped("\n".join(lines).strip())


def summary(model: type) -> str:
    """Return the first paragraph of a class's docstring on one line."""
    return one_line(re.split(r"\n\s*\n", prose(model))[0])


def anchor(dotted: str) -> str:
    """Return the anchor (URL fragment) of the heading of the dotted key, as the documentation site generates it."""
    return re.sub(r"[^\w\- ]", "", dotted).strip().lower().replace(" ", "-")


def joined(*parts: str) -> str:
    """Return the non-empty parts as one text, with a blank line between them and one line break at the end."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def attributes(model: type) -> dict[str, str]:
    """Return the description of each attribute, by name, from the `Attributes:` section of a class's docstring.

    Each description is on one line.
    """
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in inspect.cleandoc(model.__doc__ or "").splitlines():
        if not line.startswith(" "):
            inside = line.strip() == "Attributes:" or (inside and not line.strip())
            continue
        entry = re.match(r"    (\w+)(?: \([^)]*\))?: (.*)", line) if inside else None
        if entry:
            name = entry[1]
            found[name] = entry[2].strip()
        elif inside and name and line.strip():
            found[name] += f" {line.strip()}"
    return found
