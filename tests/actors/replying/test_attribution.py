"""The waterfall blames the stage that was slow, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.core.settings.settings import EndpointingSettings, Settings, SpeculationSettings
from tests.actors.stage_play import Play
from tests.actors.virtual_time import run_virtual

EXTRA_S = 0.2


async def _report(play: Play) -> dict[str, Any]:
    async with play.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
    report: dict[str, Any] = done["rejoinder"]
    return report


# The turn model decides alone: nothing that it does depends on the transcript.
INDEPENDENT = Settings(
    # A verdict takes the turn at once: a silence that it asks for would hide a part of its own time.
    endpointing=EndpointingSettings(
        finished_probability=0.0, verdict_timeout_ms=2000, min_silence_ms=0, cut_off_budget=0.99
    ),
    speculation=SpeculationSettings(enabled=False),
)
DRAFTING = INDEPENDENT.model_copy(update={"speculation": SpeculationSettings()})


def _slow(name: str, settings: Settings = INDEPENDENT, extra_s: float = EXTRA_S) -> Play:
    """A play with one engine that takes `extra_s` longer."""
    play = Play(settings=settings)
    if name == "endpoint":
        play.turn.delay_s += extra_s
    elif name == "stt":
        play.stt.delay_s += EXTRA_S
    elif name == "llm_first_token":
        play.llm.ttft_s = {replica: ttft_s + EXTRA_S for replica, ttft_s in play.llm.ttft_s.items()}
    elif name == "tts_first_audio":
        play.tts.delay_s += EXTRA_S
    return play


@pytest.mark.parametrize("name", ["endpoint", "stt", "llm_first_token", "tts_first_audio"])
def test_a_slow_engine_grows_its_own_stage_only(name: str) -> None:
    """200 ms more in one engine: its stage has them, every other is as before or covered more, the parts sum up."""
    usual, slow = run_virtual(_report(_slow("none"))), run_virtual(_report(_slow(name)))
    grown = {stage: slow["stages_ms"][stage] - usual["stages_ms"][stage] for stage in usual["stages_ms"]}
    # A verdict runs beside the transcript, which is only seen as far as it takes longer.
    covered = usual["stages_ms"]["stt"] if name == "endpoint" else 0.0
    assert slow["server_ms"] - usual["server_ms"] == pytest.approx(EXTRA_S * 1000 - covered, abs=32)
    assert grown.pop(name) == pytest.approx(EXTRA_S * 1000, abs=32)
    assert all(growth <= 1.0 for growth in grown.values()), grown
    for report in (usual, slow):
        assert report["unattributed_ms"] <= 5
        assert sum(report["stages_ms"].values()) + report["unattributed_ms"] == pytest.approx(
            report["server_ms"], abs=0.5
        )


@pytest.mark.parametrize("name", ["stt", "llm_first_token", "tts_first_audio"])
def test_a_slow_engine_of_a_draft_grows_its_own_stage_only(name: str) -> None:
    """The same of a reply that was begun before its turn was taken, and not ready when it was."""
    usual, slow = run_virtual(_report(_slow("none", DRAFTING))), run_virtual(_report(_slow(name, DRAFTING)))
    assert usual["drafted"]
    grown = {stage: slow["stages_ms"][stage] - usual["stages_ms"][stage] for stage in usual["stages_ms"]}
    assert slow["server_ms"] - usual["server_ms"] == pytest.approx(EXTRA_S * 1000, abs=32)
    assert grown.pop(name) == pytest.approx(EXTRA_S * 1000, abs=32)
    assert all(growth <= 1.0 for growth in grown.values()), grown


def test_a_decision_later_than_its_draft_is_blamed_for_what_it_took_beyond() -> None:
    """A draft that is ready waits for the decision: that wait is ENDPOINT's, and nothing else grows."""
    usual = run_virtual(_report(_slow("none", DRAFTING)))
    slow = run_virtual(_report(_slow("endpoint", DRAFTING, extra_s=0.5)))
    grown = {stage: slow["stages_ms"][stage] - usual["stages_ms"][stage] for stage in usual["stages_ms"]}
    longer = slow["server_ms"] - usual["server_ms"]
    assert 100 < longer < 500
    assert grown.pop("endpoint") == pytest.approx(longer, abs=1)
    assert all(growth <= 1.0 for growth in grown.values()), grown


def test_the_waterfall_is_what_the_fakes_take() -> None:
    """Each stage's share is its fake's own time; the metrics are told the same."""
    play = Play()
    report = run_virtual(_report(play))
    raw = report["raw_ms"]
    assert raw["stt"] == pytest.approx(150, abs=0.2)
    assert raw["llm_first_token"] == pytest.approx(80, abs=0.2)
    assert raw["first_segment"] == pytest.approx(2 * 20, abs=0.2)
    assert raw["tts_first_audio"] == pytest.approx(50, abs=0.2)
    assert raw["delivery"] == pytest.approx(0, abs=0.2)
    (told,) = play.metrics.turns
    assert told["total"] * 1000 == pytest.approx(report["server_ms"], abs=0.1)
    assert told["stt"] * 1000 == pytest.approx(report["stages_ms"]["stt"], abs=0.1)


def test_a_turn_that_its_words_decided_waited_for_the_transcript() -> None:
    """The transcript came before any verdict and read finished: its time is STT's, not the decision's."""
    report = run_virtual(_report(Play()))
    assert report["stages_ms"]["stt"] == pytest.approx(150, abs=1)
    assert report["stages_ms"]["endpoint"] <= 1
