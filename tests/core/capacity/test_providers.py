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
    """`PROVIDERS` has 8 rows for speech to text, 7 for language models and 7 for speech synthesis.

    They are all rows of the latency guide's sections 1.4 to 1.6, and the rows of its section 9 that have other figures.
    """
    assert sum(row.stage == stage for row in PROVIDERS) == rows


def test_the_fastest_is_chosen() -> None:
    """`choose` returns the provider with the lowest published latency, with the guide's section as its source."""
    assert choose("tts", Tier.GOOD).provider.name == "Cartesia Sonic Turbo"
    assert choose("llm", Tier.GOOD).provider.source == "published, guide section 1.5"


def test_a_reachable_choice_lists_faster_providers() -> None:
    """With `reachable=True`, only providers for which an engine is implemented are chosen.

    Faster providers without an engine are listed in `passed_over`. If no provider has an engine, ValueError is raised.
    """
    rows = (
        Provider("stt", name="fast", low_ms=50, high_ms=50, section="x"),
        Provider("stt", name="ours", low_ms=90, high_ms=110, section="x", settings={"engine": "whisper"}),
    )
    found = choose("stt", Tier.EXCELLENT, rows, reachable=True)
    assert (found.provider.name, [row.name for row in found.passed_over]) == ("ours", ["fast"])
    with pytest.raises(ValueError, match="no published tts"):
        choose("tts", Tier.GOOD, reachable=True)


def test_the_limit_is_less_than() -> None:
    """A latency equal to the tier's limit does not meet it, because the guide's section 3.2 says "<"."""
    rows = (Provider("stt", name="exact", low_ms=100, high_ms=100, section="x"),)
    assert not choose("stt", Tier.EXCELLENT, rows).holds
    assert choose("stt", Tier.GOOD, rows).holds


@pytest.mark.parametrize("row", [row for row in PROVIDERS if row.settings], ids=lambda row: row.name)
def test_settings_of_a_provider_are_valid(row: Provider) -> None:
    """The settings of a provider are a valid configuration of its stage."""
    section = getattr(parse_settings({row.stage: row.settings}), row.stage)
    assert section.engine == row.settings["engine"]


def test_hardware_arithmetic() -> None:
    """7 billion parameters of 16 bits take 14 GB, which a GPU with 300 GB/s reads 21 times a second.

    The tables PRECISIONS and GPUS have the rows of the latency guide.
    """
    assert weights_gb(7, 16) == 14
    assert decode_bound_tokens_per_s(300, 7, 16) == pytest.approx(21.4, abs=0.1)
    assert [row.bits for row in PRECISIONS] == [32, 16, 8, 4]
    assert {gpu.name for gpu in GPUS} == {"H100", "A100", "L4", "A10G", "T4"}
    assert all(row.minimum_mb <= row.recommended_mb <= row.production_mb for row in RAM)
