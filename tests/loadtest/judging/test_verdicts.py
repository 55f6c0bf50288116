"""Tests of the verdicts on latency limits, which have 95% confidence: turns needed, error rates and precedence."""

from __future__ import annotations

import random

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from loadtest.judging import verdicts
from loadtest.results.histograms import encoded
from loadtest.results.result import VOICE_TO_VOICE, Counts, RunOutcome
from rejoinder.core.capacity.budgets import Tier


def recorded(values_ms: list[float]) -> HdrHistogram:
    """Return a histogram, in microseconds, of values that are given in milliseconds."""
    return HdrHistogram.decode(encoded([value / 1000 for value in values_ms]))


@pytest.mark.parametrize(("violations", "turns"), [(0, 299), (1, 473), (5, 1049), (10, 1693)])
def test_a_p99_needs_the_published_number_of_turns(violations: int, turns: int) -> None:
    """At 95% confidence, a p99 limit passes with this number of turns if `violations` of them reach the limit.

    With one turn less it is UNDECIDED.
    """
    assert verdicts.judge(violations, turns, 0.99) == (RunOutcome.PASS, 0)
    assert verdicts.judge(violations, turns - 1, 0.99)[0] is RunOutcome.UNDECIDED


def test_an_undecided_verdict_states_how_many_turns_it_needs() -> None:
    """100 turns without a violation leave a p99 limit UNDECIDED, and 199 more are stated as needed.

    With these additional turns, also without a violation, the limit passes.
    """
    outcome, needed = verdicts.judge(0, 100, 0.99)
    assert (outcome, needed) == (RunOutcome.UNDECIDED, 199)
    assert verdicts.judge(0, 100 + needed, 0.99)[0] is RunOutcome.PASS


@given(st.integers(0, 400), st.integers(1, 400), st.sampled_from([0.5, 0.95, 0.99]))
def test_more_violations_never_help(violations: int, turns: int, quantile: float) -> None:
    """With more violations a verdict never moves from FAIL or UNDECIDED towards PASS."""
    order = [RunOutcome.PASS, RunOutcome.UNDECIDED, RunOutcome.FAIL]
    fewer, more = sorted((min(violations, turns), min(violations // 2, turns)))
    assert order.index(verdicts.judge(fewer, turns, quantile)[0]) <= order.index(
        verdicts.judge(more, turns, quantile)[0]
    )


def test_wrong_verdicts_are_rare() -> None:
    """If exactly 5% of turns reach the limit, at most about 5% of runs PASS and at most about 5% FAIL."""
    draw = random.Random(3)
    outcomes = [verdicts.judge(sum(draw.random() < 0.05 for _ in range(500)), 500, 0.95)[0] for _ in range(1000)]
    assert outcomes.count(RunOutcome.PASS) <= 70
    assert outcomes.count(RunOutcome.FAIL) <= 70


def test_a_value_at_the_limit_is_a_violation() -> None:
    """A turn that reaches the limit of 800 ms, to the histogram's precision, counts as a violation."""
    row = verdicts.quantile_verdict(
        "x", source="y", statistic="p50", limit_ms=800, histogram=recorded([700.0] * 5 + [800.5] * 3 + [900.0] * 2)
    )
    assert (row.violations, row.turns) == (5, 10)


def test_gates_fail_for_lost_calls_and_turns() -> None:
    """A run fails for lost calls, lost turns, underruns, or a bad conversation, even if its answers are fast.

    More than 5% of the replies stop for nothing, more than 5% do not stop for their caller, or more than 1% fail.
    """
    series = {VOICE_TO_VOICE: recorded([500.0] * 1000)}
    good = Counts(sessions_opened=100, turns=1000, answered=1000, audio_s=3000)
    assert verdicts.overall(verdicts.gates(Tier.GOOD, series, good), ()) is RunOutcome.PASS
    for bad in (
        Counts(sessions_opened=98, sessions_refused=2, turns=1000, answered=1000, audio_s=3000),
        Counts(sessions_opened=100, sessions_dropped=1, turns=1000, answered=1000, audio_s=3000),
        Counts(sessions_opened=100, turns=1000, answered=980, unanswered=20, audio_s=3000),
        Counts(sessions_opened=100, turns=1000, answered=1000, audio_s=3000, underrun_s=30),
        Counts(sessions_opened=100, turns=1000, answered=1000, audio_s=3000, false_interruptions=51),
        Counts(sessions_opened=100, turns=1000, answered=1000, audio_s=3000, interruptions=100, late_yields=6),
        Counts(sessions_opened=100, turns=1000, answered=1000, audio_s=3000, responses=1000, responses_failed=11),
    ):
        assert verdicts.overall(verdicts.gates(Tier.GOOD, series, bad), ()) is RunOutcome.FAIL


def test_what_did_not_happen_is_not_judged() -> None:
    """Without interruptions there is no verdict on them, and without replies none on replies."""
    names = {row.name for row in verdicts.gates(Tier.GOOD, {}, Counts(turns=10, answered=10))}
    assert "replies not falsely interrupted" in names
    assert not names & {"interruptions that stop the reply", "responses without an error"}


def test_a_failed_self_check_makes_the_run_invalid() -> None:
    """INVALID takes precedence over FAIL and PASS, and has its own exit status."""
    failing = verdicts.gates(Tier.GOOD, {VOICE_TO_VOICE: recorded([5000.0] * 500)}, Counts(turns=500))
    assert verdicts.overall(failing, ("late",)) is RunOutcome.INVALID
    assert len({outcome.exit_code for outcome in RunOutcome}) == 4


def test_every_table_of_the_guide_has_its_rows() -> None:
    """Each limit of the latency guide has a verdict: 3 total latencies, 6 components in 3 tiers, and 7 metrics.

    Without measurements it is UNDECIDED.
    """
    rows = list(verdicts.guide_verdicts({}))
    assert len(rows) == 3 + 18 + 7
    assert {row.outcome for row in rows} == {RunOutcome.UNDECIDED}
    assert {row.observed_ms for row in rows} == {None}


@pytest.mark.parametrize(("underrun_s", "outcome"), [(0.3, RunOutcome.PASS), (0.6, RunOutcome.FAIL)])
def test_underruns_are_compared_without_rounding(underrun_s: float, outcome: RunOutcome) -> None:
    """0.3 s of silence in 99.6 s of audio is within the limit of 0.5%. 0.6 s is not."""
    counts = Counts(sessions_opened=1, turns=1, answered=1, audio_s=99.6, underrun_s=underrun_s)
    (row,) = (gate for gate in verdicts.gates(Tier.GOOD, {}, counts) if gate.name == "audio without underruns")
    assert row.outcome is outcome
