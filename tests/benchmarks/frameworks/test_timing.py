"""Tests of added latency, missed turns and stray replies (that belong to no turn), and of the rule for passing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.frameworks.timing import (
    FOREIGN_SHARE,
    LATE_FRAMES_MS,
    Answers,
    EngineTimes,
    HarnessCheck,
    ProbeOutcome,
    TimedEdge,
    judge,
    merge,
    percentile,
    verdict,
)

GOOD = HarnessCheck(1.0, 0.0)
TIMEOUT_S = 5.0


def test_sequential_transcription_has_a_later_ideal_answer() -> None:
    """If transcription starts at the end of turn, the ideal answer comes 330 ms after it, the time of all engines."""
    assert TimedEdge(2000, 2000).ideal_ms(EngineTimes()) == 2330


def test_overlapping_transcription_has_an_earlier_ideal_answer() -> None:
    """If transcription starts before the end of turn, the ideal answer comes earlier by the overlap.

    The overlap is at most the 100 ms that transcription takes.
    """
    assert TimedEdge(1936, 2072).ideal_ms(EngineTimes()) == 2072 + 230
    assert TimedEdge(1936, 1990).ideal_ms(EngineTimes()) == 1936 + 330


def test_an_answer_is_measured_from_its_ideal_time() -> None:
    """Added latency is the time in ms from a turn's ideal answer to its reply. Turns of the warm-up are left out."""
    found = judge([10.0, 18.0, 26.0], [10.5, 18.012, 26.030], TIMEOUT_S, counted_from=16.0)
    assert found.added_ms == pytest.approx((12, 30))
    assert (found.missed, found.stray) == (0, 0)


def test_a_turn_without_an_answer_in_time_is_missed() -> None:
    """A turn without a reply is missed.

    If the reply comes after the timeout, the turn is missed and the reply is stray.
    """
    assert judge([10.0], [], TIMEOUT_S, 0) == Answers((), 1, 0)
    assert judge([10.0], [15.1], TIMEOUT_S, 0) == Answers((), 1, 1)


def test_a_reply_before_the_end_of_its_turn_is_stray() -> None:
    """A reply that comes before its turn's ideal time is stray, and the turn is missed."""
    assert judge([10.0], [9.5], TIMEOUT_S, 0) == Answers((), 1, 1)


def test_a_second_reply_is_stray() -> None:
    """Only the first reply to a turn is its answer. Every further reply is stray."""
    found = judge([10.0], [10.01, 12.0], TIMEOUT_S, 0)
    assert found.added_ms == pytest.approx((10,))
    assert (found.missed, found.stray) == (0, 1)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=20))
def test_every_turn_counts_once(late_ms: list[int]) -> None:
    """Every turn is either answered or missed, and every reply later than the timeout of 200 ms is stray."""
    ideal = [8.0 * number for number in range(len(late_ms))]
    sounded = [due + late / 1000 for due, late in zip(ideal, late_ms, strict=True)]
    found = judge(ideal, sounded, 0.2, counted_from=0.0)
    assert found.turns == len(ideal)
    assert found.missed == found.stray == sum(late > 200 for late in late_ms)


def test_sessions_are_summed() -> None:
    """`merge` adds up the answers of several sessions."""
    assert merge([Answers((1.0,), 1, 0), Answers((2.0, 3.0), 0, 2)]) == Answers((1.0, 2.0, 3.0), 1, 2)


def test_the_percentile_is_a_measured_value() -> None:
    """`percentile` returns the value at the nearest rank, without interpolation. It returns None for no values."""
    assert percentile([1.0, 2.0, 50.0, 51.0], 50) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 95) == 95.0
    assert percentile([], 95) is None


@pytest.mark.parametrize(
    ("answers", "check", "expected"),
    [
        (Answers((10.0,) * 20, 0, 0), GOOD, ProbeOutcome.PASS),
        (Answers((50.0,) * 20, 0, 0), GOOD, ProbeOutcome.PASS),
        (Answers((50.1,) * 20, 0, 0), GOOD, ProbeOutcome.FAIL),
        (Answers((10.0,) * 19 + (400.0,), 0, 0), GOOD, ProbeOutcome.PASS),
        (Answers((10.0,) * 18 + (400.0,) * 2, 0, 0), GOOD, ProbeOutcome.FAIL),
        (Answers((10.0,) * 999, 1, 0), GOOD, ProbeOutcome.FAIL),
        (Answers((10.0,) * 999, 0, 1), GOOD, ProbeOutcome.FAIL),
        (Answers((10.0,) * 20, 0, 0), HarnessCheck(LATE_FRAMES_MS + 1, 0.0), ProbeOutcome.INVALID),
        (Answers((900.0,) * 20, 7, 0), HarnessCheck(LATE_FRAMES_MS + 1, 0.0), ProbeOutcome.INVALID),
        (Answers((10.0,) * 20, 0, 0), HarnessCheck(1.0, FOREIGN_SHARE + 0.01), ProbeOutcome.INVALID),
        (Answers((), 0, 0), GOOD, ProbeOutcome.INVALID),
    ],
)
def test_the_verdict(answers: Answers, check: HarnessCheck, expected: ProbeOutcome) -> None:
    """A run passes with a 95th percentile of added latency of at most 50 ms, no missed turn and no stray reply.

    A run without turns, or with a failed check of the test harness, is INVALID.
    """
    assert verdict(answers, check)[0] is expected
