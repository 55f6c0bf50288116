"""Added latency and the pass rule: what counts, what is missed, and whose fault a bad run is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.frameworks.timing import (
    FOREIGN_SHARE,
    LATE_FRAMES_MS,
    Answers,
    EngineTimes,
    HarnessFitness,
    ProbeOutcome,
    TimedEdge,
    judge,
    percentile,
    together,
    verdict,
)

FIT = HarnessFitness(1.0, 0.0)
PATIENCE_S = 5.0


def test_who_hears_and_waits_in_turn_is_charged_from_both() -> None:
    """Silence, then the three engines: 330 ms after the contender's own end of speech."""
    assert TimedEdge(2000, 2000).ideal_ms(EngineTimes()) == 2330


def test_work_beside_the_silence_is_no_credit() -> None:
    """Transcription that runs while the silence lasts is not charged, and makes nobody early."""
    assert TimedEdge(1936, 2072).ideal_ms(EngineTimes()) == 2072 + 230
    assert TimedEdge(1936, 1990).ideal_ms(EngineTimes()) == 1936 + 330


def test_an_answer_is_measured_from_its_ideal_instant() -> None:
    """In milliseconds, turn by turn; those before the counted part are left out."""
    found = judge([10.0, 18.0, 26.0], [10.5, 18.012, 26.030], PATIENCE_S, counted_from=16.0)
    assert found.added_ms == pytest.approx((12, 30))
    assert (found.missed, found.stray) == (0, 0)


def test_a_turn_without_an_answer_in_time_is_missed() -> None:
    """Silence is a miss; an answer after the patience is a miss and a reply out of turn."""
    assert judge([10.0], [], PATIENCE_S, 0) == Answers((), 1, 0)
    assert judge([10.0], [15.1], PATIENCE_S, 0) == Answers((), 1, 1)


def test_a_reply_before_its_turn_ended_is_out_of_turn() -> None:
    """It answered half a sentence: the turn is missed, however soon the reply came."""
    assert judge([10.0], [9.5], PATIENCE_S, 0) == Answers((), 1, 1)


def test_a_second_reply_is_out_of_turn() -> None:
    """One turn, one answer."""
    found = judge([10.0], [10.01, 12.0], PATIENCE_S, 0)
    assert found.added_ms == pytest.approx((10,))
    assert (found.missed, found.stray) == (0, 1)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=20))
def test_every_turn_counts_once(late_ms: list[int]) -> None:
    """However late they are, answered and missed turns are all the turns."""
    ideal = [8.0 * number for number in range(len(late_ms))]
    sounded = [due + late / 1000 for due, late in zip(ideal, late_ms, strict=True)]
    found = judge(ideal, sounded, 0.2, counted_from=0.0)
    assert found.turns == len(ideal)
    assert found.missed == found.stray == sum(late > 200 for late in late_ms)


def test_sessions_are_summed() -> None:
    """All turns of all sessions are one sample."""
    assert together([Answers((1.0,), 1, 0), Answers((2.0, 3.0), 0, 2)]) == Answers((1.0, 2.0, 3.0), 1, 2)


def test_the_percentile_is_a_measured_value() -> None:
    """Nearest rank, never interpolated; nothing has none."""
    assert percentile([1.0, 2.0, 50.0, 51.0], 50) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 95) == 95.0
    assert percentile([], 95) is None


@pytest.mark.parametrize(
    ("answers", "fitness", "expected"),
    [
        (Answers((10.0,) * 20, 0, 0), FIT, ProbeOutcome.PASS),
        (Answers((50.0,) * 20, 0, 0), FIT, ProbeOutcome.PASS),
        (Answers((50.1,) * 20, 0, 0), FIT, ProbeOutcome.FAIL),
        (Answers((10.0,) * 19 + (400.0,), 0, 0), FIT, ProbeOutcome.PASS),
        (Answers((10.0,) * 18 + (400.0,) * 2, 0, 0), FIT, ProbeOutcome.FAIL),
        (Answers((10.0,) * 999, 1, 0), FIT, ProbeOutcome.FAIL),
        (Answers((10.0,) * 999, 0, 1), FIT, ProbeOutcome.FAIL),
        (Answers((10.0,) * 20, 0, 0), HarnessFitness(LATE_FRAMES_MS + 1, 0.0), ProbeOutcome.INVALID),
        (Answers((900.0,) * 20, 7, 0), HarnessFitness(LATE_FRAMES_MS + 1, 0.0), ProbeOutcome.INVALID),
        (Answers((10.0,) * 20, 0, 0), HarnessFitness(1.0, FOREIGN_SHARE + 0.01), ProbeOutcome.INVALID),
        (Answers((), 0, 0), FIT, ProbeOutcome.INVALID),
    ],
)
def test_the_verdict(answers: Answers, fitness: HarnessFitness, expected: ProbeOutcome) -> None:
    """p95 within 50 ms and nothing missed passes; what the harness spoiled is nobody's failure and nobody's pass."""
    assert verdict(answers, fitness)[0] is expected
