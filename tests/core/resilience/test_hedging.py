"""Tests of hedging: after which delay a second request is sent, how many are allowed, and which answer is used.

The attempts at one answer are a race. The primary attempt is the first, and the first with a token wins.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.hedging import (
    MAX_ATTEMPTS,
    MAX_RUNNING,
    RELATIVE_ERROR,
    AttemptFailed,
    CancelAttempt,
    FirstToken,
    GiveUp,
    HedgeBudget,
    HedgeDue,
    HedgePolicy,
    PrimarySent,
    Race,
    RaceCommand,
    RaceEvent,
    RacePhase,
    ReplicaSilent,
    StartHedge,
    TtftWindow,
    UseAttempt,
    prompt_tokens,
    step,
)
from rejoinder.core.settings.settings import HedgingSettings

ttfts = st.floats(1e-3, 60)
attempts = st.integers(0, MAX_ATTEMPTS)
race_events = st.one_of(
    st.just(PrimarySent()),
    st.just(HedgeDue()),
    st.builds(FirstToken, attempts),
    st.builds(AttemptFailed, attempts),
    st.builds(ReplicaSilent, attempts, st.booleans()),
)


def always(*, must: bool = False) -> bool:
    return True


def never(*, must: bool = False) -> bool:
    return must


@given(st.lists(ttfts, min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_are_order_statistics_to_the_stated_error(samples: list[float], q: float) -> None:
    """The q-quantile of n samples is the ceil(q n)-th smallest one, within one percent."""
    window = TtftWindow(30.0)
    for sample in samples:
        window.observe(sample, 1000.0)
    exact = sorted(samples)[max(1, math.ceil(q * len(samples))) - 1]
    assert window.quantile(q, 1000.0) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001)


def test_the_window_forgets_a_slice_at_a_time() -> None:
    """A window of 30 s forgets samples in slices of 10 s, so a sample counts for between 20 and 30 s.

    The quantile of an empty window raises an error.
    """
    window = TtftWindow(30.0)
    window.observe(0.1, 5.0)
    window.observe(0.9, 15.0)
    assert [window.count(now) for now in (29.9, 30.0, 40.0)] == [2, 1, 0]
    with pytest.raises(ValueError, match="no time to first token"):
        window.quantile(0.5, 40.0)


@given(st.sampled_from([0.0, 0.01, 0.04, 0.1, 0.5, 1.0]), st.floats(1, 20), st.lists(st.booleans(), max_size=300))
def test_the_budget_bounds_further_attempts(ratio: float, cap: float, spends: list[bool]) -> None:
    """For any order of requests, the hedges and retries are at most `ratio` times the primary attempts."""
    budget, primaries, spent = HedgeBudget(ratio, cap), 0, 0
    for spend in spends:
        if spend:
            spent += budget.try_spend()
        else:
            primaries += 1
            budget.earn()
        assert spent <= ratio * primaries + 1e-6


def test_a_necessary_attempt_leaves_a_debt() -> None:
    """An attempt that must be sent is charged too. Optional ones pause until the debt, of at most `cap`, is paid."""
    budget = HedgeBudget(0.5, 2)
    for _ in range(5):
        budget.charge()
    assert not budget.affordable
    for _ in range(5):
        budget.earn()
    assert not budget.try_spend()
    budget.earn()
    assert [budget.affordable, budget.try_spend(), budget.affordable] == [True, True, False]


def test_the_budget_is_exact_and_capped() -> None:
    """With a ratio of 0.1, ten primary attempts pay for one hedge. At most `cap` unused hedges are saved."""
    budget = HedgeBudget(0.1, 2)
    for _ in range(10):
        budget.earn()
    assert [budget.try_spend(), budget.try_spend()] == [True, False]
    for _ in range(1000):
        budget.earn()
    assert [budget.try_spend() for _ in range(3)] == [True, True, False]


def test_the_delay_follows_the_tail_once_there_are_samples() -> None:
    """With fewer than `min_samples` recent times to first token, the delay before a hedge is the configured deadline.

    With more, it is the (1 - budget) quantile of these times; `budget` is the share of requests that may be hedged.
    """
    policy = HedgePolicy(HedgingSettings(budget=0.04, min_samples=100, first_token_deadline_ms=600))
    for index in range(99):
        policy.observe_ttft(0.1 + index / 1000, 1.0)
    assert policy.delay_s(1.0) == 0.6
    policy.observe_ttft(0.199, 1.0)
    assert policy.delay_s(1.0) == pytest.approx(0.195, rel=RELATIVE_ERROR)
    assert policy.delay_s(100.0) == 0.6


def test_the_delay_depends_on_the_prompt_size() -> None:
    """Delays are measured for each range of prompt sizes, so long prompts do not raise the delay of short ones."""
    policy = HedgePolicy(HedgingSettings(min_samples=1))
    policy.observe_ttft(0.1, 0.0, prompt_tokens=40)
    policy.observe_ttft(1.5, 0.0, prompt_tokens=5000)
    assert policy.delay_s(0.0, prompt_tokens=200) == pytest.approx(0.1, rel=RELATIVE_ERROR)
    assert policy.delay_s(0.0, prompt_tokens=4096) == pytest.approx(1.5, rel=RELATIVE_ERROR)
    assert policy.delay_s(0.0, prompt_tokens=1000) == 0.6  # fixed deadline: no prompt of this size was measured
    assert policy.usual_s(0.0) == 0.0
    assert prompt_tokens(4 * 256) == 256


def test_a_hedge_that_would_only_wait_is_vetoed() -> None:
    """A hedge is not sent if the shortest queue of another replica is known to have `veto_queue` requests or more."""
    policy = HedgePolicy(HedgingSettings(veto_queue=3))
    assert [policy.vetoed(queue) for queue in (None, 0, 2, 3, 9)] == [False, False, False, True, True]


@pytest.mark.parametrize(("ttft_s", "delay_s"), [(0.001, 0.02), (30.0, 2.0)])
def test_the_delay_is_clamped(ttft_s: float, delay_s: float) -> None:
    """The delay before a hedge is sent lies between the settings min_delay_ms and max_delay_ms."""
    policy = HedgePolicy(HedgingSettings(min_samples=1))
    policy.observe_ttft(ttft_s, 0.0)
    assert policy.delay_s(0.0) == delay_s


def test_hedging_can_be_switched_off() -> None:
    """With enabled=False the delay is infinite and the budget pays for no optional attempt, so no hedge is sent."""
    policy = HedgePolicy(HedgingSettings(enabled=False, budget=1.0))
    assert policy.delay_s(0.0) == math.inf
    policy.on_primary(0.0)
    assert not policy.affordable
    assert [policy.spend(), policy.spend(must=True)] == [False, True]


def test_the_policy_pays_for_hedges_out_of_primaries() -> None:
    """With a budget of 4%, 25 primary attempts pay for one further attempt."""
    policy = HedgePolicy(HedgingSettings(budget=0.04))
    for _ in range(25):
        policy.on_primary(0.0)
    assert [policy.spend(), policy.spend()] == [True, False]


def run(events: list[RaceEvent], funded: bool = True) -> tuple[Race, list[RaceCommand]]:
    """Return the race and its commands after events that are one second apart.

    If `funded` is False, the budget pays for no further attempt.
    """
    race, commands = Race(), list[RaceCommand]()
    for now, event in enumerate(events):
        race, new = step(race, event, float(now), always if funded else never)
        commands += new
    return race, commands


def test_a_fast_primary_wins_alone() -> None:
    """A primary attempt that answers before the delay is used, and a HedgeDue after that starts no hedge."""
    race, commands = run([PrimarySent(), FirstToken(0), HedgeDue()])
    assert commands == [UseAttempt(0, 1.0)]
    assert race.phase is RacePhase.WON


def test_a_hedge_that_answers_first_wins_and_the_primary_is_cancelled() -> None:
    """If the hedge answers first, the primary attempt is cancelled once, with the seconds it had waited.

    A later token of the primary attempt changes nothing.
    """
    _, commands = run([PrimarySent(), HedgeDue(), FirstToken(1), FirstToken(0)])
    assert commands == [StartHedge(1), UseAttempt(1, 1.0), CancelAttempt(0, 2.0)]


def test_without_budget_the_primary_runs_alone() -> None:
    """If the budget does not pay for a hedge, none is sent, and the answer of the primary attempt is used."""
    assert run([PrimarySent(), HedgeDue(), FirstToken(0)], funded=False)[1] == [UseAttempt(0, 2.0)]


def test_a_silent_replica_costs_a_token_unless_it_is_confirmed() -> None:
    """Without a token, an attempt on a replica that only seems silent gets no second one. A confirmed silence does."""
    assert run([PrimarySent(), ReplicaSilent(0)])[1] == [StartHedge(1)]
    assert run([PrimarySent(), ReplicaSilent(0)], funded=False)[1] == []
    assert run([PrimarySent(), ReplicaSilent(0, confirmed=True)], funded=False)[1] == [StartHedge(1)]


def test_a_failure_is_retried_at_once() -> None:
    """If the only attempt fails, another is sent at once, before the delay has passed and without the budget."""
    assert run([PrimarySent(), AttemptFailed(0)], funded=False)[1] == [StartHedge(1)]


def test_a_failure_beside_a_running_attempt_is_retried_from_the_budget() -> None:
    """If one of two attempts fails, it is replaced only if the budget pays for it, because the other still runs."""
    events: list[RaceEvent] = [PrimarySent(), HedgeDue(), AttemptFailed(0)]
    assert run(events)[1] == [StartHedge(1), StartHedge(2)]
    race, _ = step(Race(), PrimarySent(), 0.0, always)
    race, _ = step(race, HedgeDue(), 1.0, always)
    assert step(race, AttemptFailed(0), 2.0, never)[1] == ()


def test_three_failures_end_the_race() -> None:
    """After three failed attempts there are no more: the race is lost, and its last command is GiveUp."""
    race, commands = run([PrimarySent(), AttemptFailed(0), AttemptFailed(1), AttemptFailed(2), AttemptFailed(2)])
    assert commands == [StartHedge(1), StartHedge(2), GiveUp()]
    assert race.phase is RacePhase.LOST


def test_the_budget_is_spent_only_for_a_needed_attempt() -> None:
    """The budget is not charged for events that start no attempt: a token, a late timer, a failure after the answer."""
    calls: list[bool] = []

    def spend(*, must: bool = False) -> bool:
        calls.append(must)
        return True

    race = Race()
    events: list[RaceEvent] = [HedgeDue(), PrimarySent(), AttemptFailed(7), FirstToken(0), HedgeDue(), AttemptFailed(0)]
    for now, event in enumerate(events):
        race, _ = step(race, event, float(now), spend)
    assert calls == []


@given(st.lists(race_events, max_size=14), st.lists(st.booleans(), min_size=14, max_size=14))
def test_any_order_of_events_keeps_the_rules(events: list[RaceEvent], funds: list[bool]) -> None:
    """For any order of events, at most one attempt is used, and every other running attempt is cancelled once."""
    race, commands, alive, granted = Race(), list[RaceCommand](), set[int](), iter(funds)
    for now, event in enumerate(events):
        alive |= {0} if isinstance(event, PrimarySent) and race.phase is RacePhase.READY else set()
        won_before = any(isinstance(command, UseAttempt) for command in commands)
        race, new = step(race, event, float(now), lambda *, must=False: next(granted) or must)
        if isinstance(event, AttemptFailed) and not won_before:
            alive.discard(event.attempt)
        for command in new:
            match command:
                case StartHedge(attempt):
                    assert attempt == len(race.sent_at) - 1
                    alive.add(attempt)
                case UseAttempt(attempt):
                    assert event == FirstToken(attempt)
                    assert attempt in alive
                case CancelAttempt(attempt):
                    alive.remove(attempt)
                case GiveUp():
                    assert not alive
        commands += new
        assert set(race.running) == alive
        assert len(alive) <= MAX_RUNNING
    wins = [command for command in commands if isinstance(command, UseAttempt)]
    cancels = [command.attempt for command in commands if isinstance(command, CancelAttempt)]
    assert len(race.sent_at) <= MAX_ATTEMPTS
    assert len(wins) + commands.count(GiveUp()) <= 1
    assert len(cancels) == len(set(cancels))
    if wins:
        assert alive == {wins[0].attempt}
        assert wins[0].attempt not in cancels


@given(st.lists(race_events, max_size=14))
def test_attempts_are_numbered_in_the_order_they_went_out(events: list[RaceEvent]) -> None:
    """Attempts are numbered from 0 without a gap, in the order in which they are started."""
    _, commands = run(events)
    started = [0, *(command.attempt for command in commands if isinstance(command, StartHedge))]
    assert all(after == before + 1 for before, after in pairwise(started))
