"""Tests of the autoscaling policies."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.app import bind, stage_deployment
from deployments.llm import Llm
from deployments.serving.autoscaling import (
    ALLOWED_LATE,
    GROW_DEVIATIONS,
    MOST_CORRECTION,
    MOST_GROWTH,
    SETTLE_S,
    HostLoad,
    HostPolicy,
    StageLoad,
    StagePolicy,
    desired_hosts,
    desired_replicas,
    late_share,
    pooled_late_share,
    replicas_for,
)
from rejoinder.core.capacity.erlang import waiting
from rejoinder.core.settings.settings import Autoscaling, HostSettings, LlmSettings, Settings

HOSTS = partial(desired_hosts, target=60.0, most=100, headroom=0.1, start_s=30.0)
STAGE = partial(desired_replicas, target=4, queue_limit_s=0.05)


def load(offered: float, late: float = 0.0, ongoing: float | None = None) -> StageLoad:
    """Return a stage's load of so many Erlangs, with requests of 0.5 s and a share of late ones."""
    rate = offered / 0.5
    return StageLoad(
        arrivals_per_s=rate,
        began=rate * 10,
        late=rate * 10 * late,
        ended=rate * 10,
        service_s=rate * 5,
        ongoing=offered if ongoing is None else ongoing,
    )


@given(st.integers(1, 64), st.floats(0.05, 0.99), st.floats(0, 3))
def test_one_replica_waits_as_erlang_c_says(slots: int, utilisation: float, limit: float) -> None:
    """With one choice, the share of late requests is Erlang C times the chance that the wait exceeds the limit."""
    offered = slots * utilisation
    exact = waiting(offered, slots) * math.exp(-(slots - offered) * limit)
    assert late_share(utilisation, slots, 1, limit) == pytest.approx(exact, abs=1e-4)


def test_two_choices_wait_as_the_mean_field_says() -> None:
    """For one slot the share of busy pairs is the square of the utilisation, and a choice is better than none."""
    assert late_share(0.4, 1, 2, 0.0) == pytest.approx(0.16, abs=1e-4)
    assert late_share(0.7, 4, 2, 0.1) < late_share(0.7, 4, 1, 0.1)
    assert [late_share(share, 4, 2, 0.1) for share in (0.0, 1.0, 2.0)] == [0.0, 1.0, 1.0]


@given(st.floats(1, 300), st.floats(0.05, 1.0))
def test_the_pooled_share_approximates_erlang_c(offered: float, spare: float) -> None:
    """Halfin and Whitt's approximation of the share that waits is above Erlang C, by at most 0.1."""
    slots = math.ceil(offered * (1 + spare)) + 1
    assert -0.01 < pooled_late_share(offered, slots, 0.0) - waiting(offered, slots) < 0.1
    assert pooled_late_share(slots + 1.0, slots, 0.0) == 1.0


def test_many_replicas_need_a_smaller_share_of_spare_slots() -> None:
    """The same rule uses about half of the slots of 4 replicas with 4 slots, and nearly three quarters of 190.

    The former policy used the largest wait of all replicas, which grows with their number.
    """
    fits = partial(replicas_for, service_s=0.5, target=4, queue_limit_s=0.05)
    assert 0.45 < 8 / (4 * fits(8.0)) < 0.6
    assert 560 / (4 * fits(560.0)) > 0.7
    assert fits(0.0) == 1


@given(st.floats(0.1, 500), st.floats(0.1, 500))
def test_more_load_never_needs_fewer_replicas(one: float, other: float) -> None:
    """The number of replicas grows with the load, and their slots always exceed it."""
    fits = partial(replicas_for, service_s=0.5, target=4, queue_limit_s=0.05)
    small, large = sorted((one, other))
    assert fits(small) <= fits(large)
    assert fits(large) * 4 > large


def test_a_target_below_one_plans_several_replicas_for_a_request() -> None:
    """A target of 0.5 requests per replica needs twice as many replicas as a target of 1."""
    fits = partial(replicas_for, service_s=0.5, queue_limit_s=0.05)
    assert fits(20.0, target=0.5) == fits(40.0, target=1)


@given(st.floats(0, 300), st.integers(1, 100), st.integers(0, 40))
def test_a_stage_grows_to_the_model_and_at_most_fivefold(offered: float, running: int, starting: int) -> None:
    """A stage gets what the model says, at most MOST_GROWTH times the running replicas. Starting ones are not added.

    It grows only if a load that is smaller by GROW_DEVIATIONS standard deviations needs more replicas too.
    """
    fits = partial(replicas_for, service_s=0.5, target=4, queue_limit_s=0.05)
    measured, planned = load(offered), running + starting
    desired, _ = STAGE(measured, running, planned, {}, now=0.0)
    surely = fits(offered * (1 - GROW_DEVIATIONS / math.sqrt(max(1.0, measured.ended))))
    if surely > planned:
        assert desired == min(fits(offered), max(planned, math.ceil(running * MOST_GROWTH)))
    else:
        assert min(fits(offered), planned) <= desired <= planned


def test_a_backlog_is_not_load() -> None:
    """Requests that wait in the replicas do not raise the number of replicas. Requests that wait at callers do."""
    calm, _ = STAGE(load(40.0), 14, 14, {}, now=0.0)
    flooded, _ = STAGE(load(40.0, late=1.0, ongoing=400.0), 14, 14, {}, now=0.0)
    assert calm == flooded == 14
    rejected = replace(load(40.0), queued=40.0)
    assert STAGE(rejected, 14, 14, {}, now=0.0)[0] > 14


def test_a_stage_shrinks_only_with_room() -> None:
    """Fourteen replicas stay if the load falls by a tenth, and become fewer if it falls by half."""
    assert STAGE(load(40.0), 14, 14, {}, now=0.0)[0] == 14
    assert STAGE(load(36.0), 14, 14, {}, now=0.0)[0] == 14
    assert STAGE(load(20.0), 14, 14, {}, now=0.0)[0] < 12


def test_measured_waits_correct_the_model() -> None:
    """If a fifth of the requests stays late although the model is satisfied, the stage grows after SETTLE_S.

    The correction is limited, and it decays slowly when few requests are late.
    """
    state: dict[str, Any] = {}
    desired, state = STAGE(load(40.0, late=0.2), 14, 14, state, now=0.0)
    assert desired == 14
    desired, state = STAGE(load(40.0, late=0.2), 14, 14, state, now=SETTLE_S)
    assert 18 <= desired <= 20
    for tick in range(2, 200):
        most, state = STAGE(load(40.0, late=1.0), 400, 400, state, now=tick * SETTLE_S)
    assert state["correction"] == MOST_CORRECTION
    after, state = STAGE(load(40.0), 400, 400, state, now=200 * SETTLE_S)
    assert state["correction"] == pytest.approx(MOST_CORRECTION * 0.998)
    assert most == replicas_for(160.0 * 1.2, 0.5, target=4, queue_limit_s=0.05)
    assert after == replicas_for(160.0 * 0.998 * 1.2, 0.5, target=4, queue_limit_s=0.05)


def test_a_draining_backlog_does_not_correct_the_model() -> None:
    """Late requests while the backlog shrinks come from an overload before, so the stage does not grow further."""
    _, state = STAGE(load(40.0, late=0.9, ongoing=400.0), 14, 14, {}, now=0.0)
    desired, state = STAGE(load(40.0, late=0.9, ongoing=200.0), 14, 14, state, now=SETTLE_S)
    assert desired == 14
    assert state["correction"] == 1.0


def test_few_requests_correct_nothing() -> None:
    """Three late requests of ten are chance, so the share of late requests counts as 0."""
    assert StageLoad(began=10, late=3).late_share == 0.0
    assert StageLoad(began=40, late=12).late_share == 0.3
    assert ALLOWED_LATE < 0.3


@given(st.integers(0, 5000), st.floats(0, 40), st.integers(1, 50))
def test_hosts_hold_the_calls_and_those_that_arrive_while_a_host_starts(
    sessions: int, rate: float, running: int
) -> None:
    """The hosts have places for the live calls and for 10% more, or the calls of 30 s if these are more."""
    hosts = HOSTS(HostLoad(sessions, rate), running, running)
    needed = math.ceil((sessions + max(sessions * 0.1, rate * 30)) / 60)
    assert hosts >= needed
    if needed > running:
        assert hosts == max(1, needed, math.ceil(sessions / 100))


def test_hosts_that_drain_are_not_forgotten() -> None:
    """While hosts drain, their calls are not reported. The rate and length of calls show how many will come back."""
    assert HOSTS(HostLoad(300, 5.0, mean_call_s=180.0), 20, 20) == math.ceil((900 * 1.1 + 60 + 150) / 60)
    assert HOSTS(HostLoad(300, 5.0), 20, 20) < 12


def test_one_late_host_of_many_adds_none() -> None:
    """A host is added if its loop is late and it is one of five, but not if it is one of fifty."""
    assert HOSTS(HostLoad(60, lagging=1, reporting=5), 5, 5) == 6
    assert HOSTS(HostLoad(2500, lagging=1, reporting=50), 50, 50) == 50
    assert HOSTS(HostLoad(2500, lagging=6, reporting=50), 50, 50) == 51


def context(running: int, ongoing: float, **signals: list[float]) -> SimpleNamespace:
    """Return an autoscaling context as Serve passes it: each signal has an old value (-1) and a new one per replica."""
    raw = {
        name: {
            f"r{index}": [SimpleNamespace(value=-1.0), SimpleNamespace(value=value)]
            for index, value in enumerate(values)
        }
        for name, values in signals.items()
    }
    return SimpleNamespace(
        current_num_replicas=running,
        target_num_replicas=running,
        total_num_requests=ongoing,
        total_queued_requests=None,
        raw_metrics=raw,
        policy_state={},
        current_time=100.0,
    )


def test_the_policies_read_the_newest_signals() -> None:
    """The policies add the newest signals of all replicas, and use 0 for what is missing."""
    hosts = HostPolicy(60.0, 100, 0.1, start_s=30.0, lag_limit_s=0.05)
    assert hosts(context(2, 0, sessions=[60, 80], loop_lag_s=[0.001, 0.002])) == (3, {})
    assert hosts(context(2, 0, sessions=[60, 30], loop_lag_s=[0.001, 0.2])) == (3, {})
    assert hosts(context(1, 0, sessions=[10], arrivals_per_s=[5.0])) == (3, {})
    assert hosts(context(1, 0)) == (1, {})
    stage = StagePolicy(target=4, queue_limit_s=0.05)
    busy = context(
        2, 30, arrivals_per_s=[40, 40], began=[400, 400], late=[0, 0], ended=[400, 400], service_s=[200, 200]
    )
    assert stage(busy)[0] == min(10, replicas_for(40.0, 0.5, target=4, queue_limit_s=0.05))
    assert stage(context(2, 12))[0] == replicas_for(12.0, 0.0, target=4, queue_limit_s=0.05)


def test_serve_accepts_the_policies() -> None:
    """An application with autoscaling builds: Serve imports and serializes both policies."""
    grows = Autoscaling(min_replicas=1, max_replicas=3)
    settings = Settings(host=HostSettings(autoscaling=grows))
    assert bind(settings)


@pytest.mark.parametrize(("target", "planned"), [(2.0, 2.0), (9.0, 4)])
def test_a_stage_plans_no_more_than_its_engine_can(target: float, planned: float) -> None:
    """The policy's target is `target_ongoing_requests`, but at most what a replica's engine serves at the same time.

    The embedded language model has 4 slots.
    """
    stage = LlmSettings(autoscaling=Autoscaling(max_replicas=3, target_ongoing_requests=target))
    scaling = stage_deployment(Llm, stage)._deployment_config.autoscaling_config
    assert scaling.policy.policy_kwargs == {"target": planned, "queue_limit_s": 0.05}
