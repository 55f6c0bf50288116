"""Tests of the latency guide's provider and hardware tables, and of the choice of a provider."""

from __future__ import annotations

import pytest

from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.capacity.hardware import GPUS, PRECISIONS, RAM, decode_bound_tokens_per_s, weights_gb
from rejoinder.core.capacity.providers import PROVIDERS, Provider, choose
from rejoinder.core.measuring.service_curves import EmulatedStage
from rejoinder.core.settings.settings import parse_settings


@pytest.mark.parametrize(("stage", "rows"), [("stt", 8), ("llm", 7), ("tts", 7)])
def test_every_row_of_the_guide_is_there(stage: EmulatedStage, rows: int) -> None:
    """All rows of 1.4, 1.5 and 1.6 are present, and those of section 9 with other figures."""
    assert sum(row.stage == stage for row in PROVIDERS) == rows


def test_the_fastest_is_chosen() -> None:
    """The provider with the lowest published latency is chosen, and its source is named as published."""
    assert choose("tts", Tier.GOOD).provider.name == "Cartesia Sonic Turbo"
    assert choose("llm", Tier.GOOD).provider.source == "published, guide section 1.5"


def test_a_reachable_choice_lists_faster_providers() -> None:
    """If only supported providers count, faster ones are listed in `passed_over`."""
    rows = (
        Provider("stt", name="fast", low_ms=50, high_ms=50, section="x"),
        Provider("stt", name="ours", low_ms=90, high_ms=110, section="x", settings={"engine": "whisper"}),
    )
    found = choose("stt", Tier.EXCELLENT, rows, reachable=True)
    assert (found.provider.name, [row.name for row in found.passed_over]) == ("ours", ["fast"])
    with pytest.raises(ValueError, match="no published tts"):
        choose("tts", Tier.GOOD, reachable=True)


def test_the_limit_is_less_than() -> None:
    """A provider at exactly the limit does not hold it, because 3.2 says "<"."""
    rows = (Provider("stt", name="exact", low_ms=100, high_ms=100, section="x"),)
    assert not choose("stt", Tier.EXCELLENT, rows).holds
    assert choose("stt", Tier.GOOD, rows).holds


@pytest.mark.parametrize("row", [row for row in PROVIDERS if row.settings], ids=lambda row: row.name)
def test_settings_of_a_provider_are_valid(row: Provider) -> None:
    """The settings of a provider are a valid configuration of its stage."""
    section = getattr(parse_settings({row.stage: row.settings}), row.stage)
    assert section.engine == row.settings["engine"]


def test_hardware_arithmetic() -> None:
    """7B parameters at 16 bits are 14 GB. An L4 with 300 GB/s reads them 21 times per second."""
    assert weights_gb(7, 16) == 14
    assert decode_bound_tokens_per_s(300, 7, 16) == pytest.approx(21.4, abs=0.1)
    assert [row.bits for row in PRECISIONS] == [32, 16, 8, 4]
    assert {gpu.name for gpu in GPUS} == {"H100", "A100", "L4", "A10G", "T4"}
    assert all(row.minimum_mb <= row.recommended_mb <= row.production_mb for row in RAM)
