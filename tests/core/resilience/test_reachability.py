"""Tests of which stages a host reaches: when it probes one, when the stage is lost, and when it is back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.reachability import ANSWERS, FAILURES, PROBE_S, Reachability

LOST_S = 5.0


def _failing(reachability: Reachability, start: float, seconds: float) -> float | None:
    """Fail every due probe of "stt" for some seconds. Return when the stage was lost, in seconds from the start."""
    for step in range(round(seconds / 0.25)):
        now = start + step * 0.25
        if "stt" in reachability.due(now):
            reachability.failed("stt", now)
        if "stt" in reachability.lost:
            return now - start
    return None


def test_a_stage_that_answers_calls_is_not_probed() -> None:
    """A stage is probed once a second while it answers nothing else, and never while a probe is under way."""
    reachability = Reachability(["stt", "tts"], LOST_S, now=0.0)
    assert reachability.due(0.9) == []
    reachability.answered("stt", 0.5)
    assert reachability.due(1.0) == ["tts"]
    assert reachability.due(1.5) == ["stt"]
    reachability.answered("stt", 2.0)
    reachability.answered("tts", 2.0)
    assert reachability.due(2.9) == []
    assert reachability.due(3.0) == ["stt", "tts"]
    reachability.answered("turn_detector", 3.0)  # not watched
    assert reachability.due(9.0) == []


def test_a_stage_is_lost_after_five_seconds_and_back_after_two_answers() -> None:
    """A stage whose probes fail is lost `lost_after_s` after its last answer. One answer does not make it usable."""
    reachability = Reachability(["stt"], LOST_S, now=0.0)
    assert _failing(reachability, 0.0, 20) == pytest.approx(LOST_S, abs=PROBE_S)
    reachability.answered("stt", 20.0)
    assert reachability.lost == ("stt",)
    assert reachability.due(20.5) == ["stt"], "a lost stage is probed once a second although it has answered"
    reachability.answered("stt", 21.0)
    assert not reachability.lost


def test_a_stage_that_serve_replaces_in_time_is_not_lost() -> None:
    """A stage that answers nothing for less than `lost_after_s` is never lost: its callers hear an apology."""
    reachability = Reachability(["stt"], LOST_S, now=0.0)
    assert _failing(reachability, 0.0, LOST_S - 0.5) is None
    reachability.answered("stt", LOST_S)
    assert _failing(reachability, LOST_S, LOST_S - 0.5) is None


def test_one_late_probe_loses_no_stage() -> None:
    """A single failed probe after a long silence, as after a pause of the whole machine, does not lose the stage."""
    reachability = Reachability(["stt"], LOST_S, now=0.0)
    for number in range(FAILURES):
        now = 60.0 + number * PROBE_S
        assert reachability.lost == ()
        assert reachability.due(now) == ["stt"]
        reachability.failed("stt", now)
    assert reachability.lost == ("stt",)


@given(st.lists(st.booleans(), max_size=60))
def test_a_stage_is_lost_only_after_failures_and_back_only_after_answers(answers: list[bool]) -> None:
    """Whatever the probes say, the last FAILURES of them failed when a stage becomes lost, and ANSWERS ended that."""
    reachability, lost = Reachability(["stt"], LOST_S, now=0.0), False
    for number, answer in enumerate(answers, 1):
        assert reachability.due(float(number)) in (["stt"], [])
        (reachability.answered if answer else reachability.failed)("stt", float(number))
        now_lost = bool(reachability.lost)
        if now_lost and not lost:
            assert not any(answers[number - FAILURES : number])
        if lost and not now_lost:
            assert all(answers[number - ANSWERS : number])
        lost = now_lost
