"""Tests that the waterfall (a turn's time, divided among its stages) attributes a delay only to the slow stage."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.core.settings.settings import EndpointingSettings, Settings, SpeculationSettings
from tests.actors.stage_play import SOUND_DECIDES, Play
from tests.actors.virtual_time import run_virtual

EXTRA_S = 0.2


async def _report(play: Play) -> dict[str, Any]:
    async with play.call() as caller:
        await caller.hush(0.5)
        done = await caller.say(1.0)
    report: dict[str, Any] = done["rejoinder"]
    return report


# The turn detector decides alone: the transcript has no influence on the end of turn.
INDEPENDENT = Settings(
    # The verdict ends the turn at once. A required silence would hide a part of the time that the verdict takes.
    endpointing=EndpointingSettings(table=SOUND_DECIDES, verdict_timeout_ms=2000, min_silence_ms=0, ask_after_ms=0),
    speculation=SpeculationSettings(enabled=False),
)
DRAFTING = INDEPENDENT.model_copy(update={"speculation": SpeculationSettings()})


def _slow(name: str, settings: Settings = INDEPENDENT, extra_s: float = EXTRA_S) -> Play:
    """Return a test scenario in which the engine of stage `name` takes longer.

    It takes 200 ms longer or, if `name` is "endpoint" (the turn detector), `extra_s` seconds. With any other name no
    engine takes longer.
    """
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
    """If one engine takes 200 ms longer, its own stage is longer by 200 ms and no other stage by more than 1 ms.

    The times of all stages and the unattributed time still sum to the turn's latency.
    """
    usual, slow = run_virtual(_report(_slow("none"))), run_virtual(_report(_slow(name)))
    grown = {stage: slow["stages_ms"][stage] - usual["stages_ms"][stage] for stage in usual["stages_ms"]}
    # The turn detector (40 ms) works beside speech-to-text, so only its time beyond that makes the turn longer.
    covered = usual["stages_ms"]["stt"] - 40 if name == "endpoint" else 0.0
    assert slow["server_ms"] - usual["server_ms"] == pytest.approx(EXTRA_S * 1000 - covered, abs=32)
    assert grown.pop(name) == pytest.approx(EXTRA_S * 1000 - covered, abs=32)
    assert all(growth <= 1.0 for growth in grown.values()), grown
    for report in (usual, slow):
        assert report["unattributed_ms"] <= 5
        assert sum(report["stages_ms"].values()) + report["unattributed_ms"] == pytest.approx(
            report["server_ms"], abs=0.5
        )


@pytest.mark.parametrize("name", ["stt", "llm_first_token", "tts_first_audio"])
def test_a_slow_engine_of_a_draft_grows_its_own_stage_only(name: str) -> None:
    """Also in a turn with a draft, an engine that takes 200 ms longer makes its own stage longer by 200 ms, and no
    other stage by more than 1 ms.
    """
    usual, slow = run_virtual(_report(_slow("none", DRAFTING))), run_virtual(_report(_slow(name, DRAFTING)))
    assert usual["drafted"]
    grown = {stage: slow["stages_ms"][stage] - usual["stages_ms"][stage] for stage in usual["stages_ms"]}
    assert slow["server_ms"] - usual["server_ms"] == pytest.approx(EXTRA_S * 1000, abs=32)
    assert grown.pop(name) == pytest.approx(EXTRA_S * 1000, abs=32)
    assert all(growth <= 1.0 for growth in grown.values()), grown


def test_the_wait_of_a_ready_draft_is_endpointing() -> None:
    """If the turn detector is 500 ms slower, the time that a ready draft waits for it counts for the stage ENDPOINT;
    no other stage is longer by more than 1 ms.
    """
    usual = run_virtual(_report(_slow("none", DRAFTING)))
    slow = run_virtual(_report(_slow("endpoint", DRAFTING, extra_s=0.5)))
    grown = {stage: slow["stages_ms"][stage] - usual["stages_ms"][stage] for stage in usual["stages_ms"]}
    longer = slow["server_ms"] - usual["server_ms"]
    assert 100 < longer < 500
    assert grown.pop("endpoint") == pytest.approx(longer, abs=1)
    assert all(growth <= 1.0 for growth in grown.values()), grown


def test_the_waterfall_is_what_the_fakes_take() -> None:
    """Each stage's time in the report is the time that its fake takes, and the metrics get the same times."""
    play = Play()
    report = run_virtual(_report(play))
    raw = report["raw_ms"]
    assert raw["stt"] == pytest.approx(150, abs=0.2)
    # 10 ms for the prefill that tells whether the message ends, and 80 ms for the token.
    assert raw["llm_first_token"] == pytest.approx(10 + 80, abs=0.2)
    assert raw["first_segment"] == pytest.approx(2 * 20, abs=0.2)
    assert raw["tts_first_audio"] == pytest.approx(50, abs=0.2)
    assert raw["delivery"] == pytest.approx(0, abs=0.2)
    (recorded,) = play.metrics.turns
    assert recorded["total"] * 1000 == pytest.approx(report["server_ms"], abs=0.1)
    assert recorded["stt"] * 1000 == pytest.approx(report["stages_ms"]["stt"], abs=0.1)


def test_a_turn_that_the_transcript_decided_waited_for_it() -> None:
    """If the transcript decides the end of turn, the wait for it counts for the stage STT and not for ENDPOINT."""
    report = run_virtual(_report(Play()))
    assert report["stages_ms"]["stt"] == pytest.approx(150, abs=1)
    assert report["stages_ms"]["endpoint"] <= 1
