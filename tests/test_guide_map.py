"""Every setting in docs/guide-map.md exists and has the stated default."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from rejoinder.core.settings.settings import Settings

MAP = Path(__file__).parent.parent / "docs" / "guide-map.md"
COLUMNS = 5


def rows() -> list[list[str]]:
    """Return the table's cells, without its head."""
    lines = [line for line in MAP.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def written(value: object) -> str:
    """Return a default as YAML writes it. Whole numbers have no decimal point."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_key_exists_with_its_default() -> None:
    """Every key exists with the stated default. A section has none."""
    found = [(cells[2].strip("`"), cells[3]) for cells in rows() if cells[2] != "-"]
    assert len(found) > 20
    for key, default in found:
        value: object = Settings()
        for name in key.split("."):
            assert name in type(value).model_fields, f"there is no setting {key}"  # type: ignore[attr-defined]
            value = getattr(value, name)
        assert default == ("-" if isinstance(value, BaseModel) else written(value)), key


def test_every_item_has_its_evidence_or_its_reason() -> None:
    """Every row names its evidence, or the reason why there is none."""
    for cells in rows():
        assert len(cells) == COLUMNS, cells
        assert len(cells[4]) >= 8, cells
