"""Tests of docs/guide-map.md, which lists each item of the latency guide with this repository's setting and evidence.

A row has five cells: section of the guide, item, key of the setting ("-" if there is none), default, evidence.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pydantic import BaseModel

from rejoinder.core.settings.settings import Settings

MAP = Path(__file__).parent.parent / "docs" / "guide-map.md"
COLUMNS = 5

SECTIONS = (
    *("summary", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7"),
    *("2.1", "2.2", "2.3.1", "2.3.2", "2.3.3", "2.3.4", "2.3.5", "2.4", "2.5"),
    *("3.1", "3.2", "4.1", "4.2", "4.3", "4.4", "5.1", "5.2", "5.3", "5.4", "5.5"),
    *("6.1", "6.2", "6.3", "6.4", "7.1", "7.2", "7.3", "8.1", "8.2", "8.3", "9.1", "9.2", "10"),
)
"""Every section of the latency guide: the summary and the numbered ones."""

LEAST_ROWS = {
    # Minimum number of rows per section of the guide. A section that is not listed needs one row. Each row of the
    # guide's tables, each numbered technique and each checklist item needs its own row; the comments name these items.
    "summary": 2,  # rows for: latency tiers; latencies of the industry
    "1.2": 3,  # rows for: WebRTC; TURN; network routes
    "1.3": 4 + 3,  # rows for four VAD parameters and three methods: VAD model, semantic, linguistic
    "1.4": 2 + 3,  # rows for: speech-to-text approaches; their providers; three techniques
    "2.2": 4,  # rows for five techniques: two of them share a row
    "2.4": 4,
    "4.2": 2,  # rows for: GPUs; precisions (number formats)
    "4.4": 3,  # rows for bandwidth: per agent; per codec; for servers
    "5.1": 3,
    "5.2": 4,
    "5.3": 3,
    "5.4": 3,
    "5.5": 3,
    "7.3": 5,
    "8.1": 3,
    "8.2": 3,
    "8.3": 3,
    "10": 4 + 5 + 5 + 4,
}


def rows() -> list[list[str]]:
    """Return the cells of each row of all tables in docs/guide-map.md, without the headings."""
    lines = [line for line in MAP.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "guide"]


def written(value: object) -> str:
    """Return a setting's default as docs/guide-map.md writes it: as in YAML, but 2.0 becomes "2"."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_key_exists_with_its_default() -> None:
    """Each setting that a row names exists and has the default that the row states.

    For a whole section of settings the row states "-" as its default.
    """
    found = [(cells[2].strip("`"), cells[3]) for cells in rows() if cells[2] != "-"]
    assert len(found) > 20
    for key, default in found:
        value: object = Settings()
        for name in key.split("."):
            assert name in type(value).model_fields, f"there is no setting {key}"  # type: ignore[attr-defined]
            value = getattr(value, name)
        assert default == ("-" if isinstance(value, BaseModel) else written(value)), key


def test_every_item_has_its_evidence_or_its_reason() -> None:
    """Each row has five cells, and its last cell has at least 8 characters or refers to a section ("see 2.1").

    That cell states the evidence for the item, or why the item is not implemented. The test does not check its meaning.
    """
    for cells in rows():
        assert len(cells) == COLUMNS, cells
        assert len(cells[4]) >= 8 or cells[4].removeprefix("see ") in SECTIONS, cells


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_the_guide_has_its_rows(section: str) -> None:
    """Each section of the latency guide has at least the rows that LEAST_ROWS requires."""
    counts = Counter(cells[0] for cells in rows())
    assert counts[section] >= LEAST_ROWS.get(section, 1)


def test_no_row_names_a_section_that_the_guide_lacks() -> None:
    """Every row belongs to a section that the latency guide has."""
    assert {cells[0] for cells in rows()} <= set(SECTIONS)
