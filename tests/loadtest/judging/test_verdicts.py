"""Limits with confidence: the published numbers of turns, and errors no more often than allowed."""

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


def taken(values_ms: list[float]) -> HdrHistogram:
    return HdrHistogram.decode(encoded([value / 1000 for value in values_ms]))


@pytest.mark.parametrize(("violations", "turns"), [(0, 299), (1, 473), (5, 1049), (10, 1693)])
def test_a_p99_takes_the_published_number_of_turns(violations: int, turns: int) -> None:
    """Load-facts, section 2, at 95% confidence: so many turns prove it, one less does not."""
    assert verdicts.judge(violations, turns, 0.99) == (RunOutcome.PASS, 0)
    assert verdicts.judge(violations, turns - 1, 0.99)[0] is RunOutcome.UNDECIDED


def test_an_open_verdict_says_how_many_turns_it_needs() -> None:
    """And so many do decide it."""
    outcome, needed = verdicts.judge(0, 100, 0.99)
    assert (outcome, needed) == (RunOutcome.UNDECIDED, 199)
    assert verdicts.judge(0, 100 + needed, 0.99)[0] is RunOutcome.PASS


@given(st.integers(0, 400), st.integers(1, 400), st.sampled_from([0.5, 0.95, 0.99]))
def test_more_violations_never_help(violations: int, turns: int, quantile: float) -> None:
    """The order is PASS, UNDECIDED, FAIL as violations grow."""
    order = [RunOutcome.PASS, RunOutcome.UNDECIDED, RunOutcome.FAIL]
    fewer, more = sorted((min(violations, turns), min(violations // 2, turns)))
    assert order.index(verdicts.judge(fewer, turns, quantile)[0]) <= order.index(
        verdicts.judge(more, turns, quantile)[0]
    )


def test_a_system_on_the_limit_is_rarely_judged() -> None:
    """When exactly 5% of turns exceed the limit, PASS and FAIL each come in about 5% of runs at the most."""
    draw = random.Random(3)
    outcomes = [verdicts.judge(sum(draw.random() < 0.05 for _ in range(500)), 500, 0.95)[0] for _ in range(1000)]
    assert outcomes.count(RunOutcome.PASS) <= 70
    assert outcomes.count(RunOutcome.FAIL) <= 70


def test_violations_are_counted_at_the_limit() -> None:
    """ "Below 800 ms": a turn of 800 ms exceeds it."""
    row = verdicts.quantile_verdict(
        "x", source="y", statistic="p50", limit_ms=800, taken=taken([700.0] * 5 + [800.5] * 3 + [900.0] * 2)
    )
    assert (row.violations, row.turns) == (5, 10)


def test_gates_fail_for_calls_and_turns_that_were_lost() -> None:
    """Fast answers do not make up for refused set-ups, dropped calls and unanswered turns."""
    series = {VOICE_TO_VOICE: taken([500.0] * 1000)}
    good = Counts(sessions_opened=100, turns=1000, answered=1000, audio_s=3000)
    assert verdicts.overall(verdicts.gates(Tier.GOOD, series, good), ()) is RunOutcome.PASS
    for bad in (
        Counts(sessions_opened=98, sessions_refused=2, turns=1000, answered=1000, audio_s=3000),
        Counts(sessions_opened=100, sessions_dropped=1, turns=1000, answered=1000, audio_s=3000),
        Counts(sessions_opened=100, turns=1000, answered=980, unanswered=20, audio_s=3000),
        Counts(sessions_opened=100, turns=1000, answered=1000, audio_s=3000, underrun_s=30),
    ):
        assert verdicts.overall(verdicts.gates(Tier.GOOD, series, bad), ()) is RunOutcome.FAIL


def test_an_unfit_generator_judges_nothing() -> None:
    """INVALID wins over FAIL and PASS, and is an exit status of its own."""
    failing = verdicts.gates(Tier.GOOD, {VOICE_TO_VOICE: taken([5000.0] * 500)}, Counts(turns=500))
    assert verdicts.overall(failing, ("late",)) is RunOutcome.INVALID
    assert len({outcome.exit_code for outcome in RunOutcome}) == 4


def test_every_table_of_the_guide_has_its_rows() -> None:
    """Three totals, six components in three tiers, seven metrics; what was not measured is undecided, not passed."""
    rows = list(verdicts.guide_verdicts({}))
    assert len(rows) == 3 + 18 + 7
    assert {row.outcome for row in rows} == {RunOutcome.UNDECIDED}
    assert {row.observed_ms for row in rows} == {None}


@pytest.mark.parametrize(("underrun_s", "outcome"), [(0.3, RunOutcome.PASS), (0.6, RunOutcome.FAIL)])
def test_underruns_are_held_against_the_limit_unrounded(underrun_s: float, outcome: RunOutcome) -> None:
    """0.3% of silence inside 99.6 s of audio is within 0.5%, 0.6% is not, whichever second they are nearest to."""
    counts = Counts(sessions_opened=1, turns=1, answered=1, audio_s=99.6, underrun_s=underrun_s)
    (row,) = (gate for gate in verdicts.gates(Tier.GOOD, {}, counts) if gate.name == "audio without underrun")
    assert row.outcome is outcome
