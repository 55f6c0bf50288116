"""Tests of the form of the documents: length of entry pages, conditions of results, tables equal to the code's data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rejoinder.core.capacity.budgets import ALERTS, Component, Tier, component_limit_ms, total_limit_ms
from rejoinder.core.capacity.hardware import GPUS, RAM

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCES = (DOCS / "references.md").read_text(encoding="utf-8")
MOST_LINES = 150


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md"])
def test_an_entry_page_is_short(name: str) -> None:
    """README.md and ARCHITECTURE.md have at most MOST_LINES lines, so that a visitor can read them in full."""
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", sorted((DOCS / "results").glob("*.md")), ids=lambda path: path.stem)
def test_a_result_names_its_conditions(path: Path) -> None:
    """Each page of measured results states the date, the machine and the command of the measurement."""
    facts = dict(re.findall(r"^\| (\w+) \| (.+) \|$", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert re.fullmatch(r"\d+ \w+ 20\d\d", facts["Date"])
    assert facts["Machine"]
    commands = [facts[name] for name in ("Command", "Commands") if name in facts]
    assert len(commands) == 1
    assert "`" in commands[0]


def _table(section: str, number: int = 0) -> list[list[str]]:
    """Return the cells of a table of the latency guide as docs/references.md reproduces it, without its heading.

    `number` counts the tables of the section from 0.
    """
    part = REFERENCES.split(f"### Latency guide, {section}\n")[1].split("\n### ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", part, re.MULTILINE)
    lines = tables[number].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _ms(cell: str) -> float:
    return float(re.sub(r"[<>~]| ?ms.*", "", cell))


def test_the_tiers_are_the_guide_s() -> None:
    """The total limits of the tiers, by which runs are judged, are those of the latency guide's table 3.1."""
    assert {row[0]: _ms(row[1]) for row in _table("3.1")} == {
        tier.value.capitalize(): total_limit_ms(tier) for tier in Tier
    }


def test_the_component_targets_are_the_guide_s() -> None:
    """The limit of every component in every tier is that of the latency guide's table 3.2."""
    for row, component in zip(_table("3.2"), Component, strict=True):
        assert [_ms(cell) for cell in row[1:]] == [component_limit_ms(component, tier) for tier in Tier], row


def test_the_alerts_are_the_guide_s() -> None:
    """Target and threshold of every alert are those of the latency guide's table 7.1."""
    for row, alert in zip(_table("7.1"), ALERTS, strict=True):
        assert (_ms(row[1]), _ms(row[2])) == (alert.target_ms, alert.alert_ms), row


def test_the_hardware_tables_are_the_guide_s() -> None:
    """GPUs and their memory are those of the latency guide's table 4.2, and the components in RAM those of 4.3."""
    assert [row[0] for row in _table("4.2")] == [gpu.name for gpu in GPUS]
    assert [row[1] for row in _table("4.2")] == [f"{gpu.vram_gb} GB" for gpu in GPUS]
    assert [row[0] for row in _table("4.3")] == [row.component for row in RAM]
