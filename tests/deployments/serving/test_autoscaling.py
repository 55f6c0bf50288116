"""Tests of the autoscaling policies."""

from __future__ import annotations

import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from deployments.app import bind
from deployments.serving.autoscaling import HostPolicy, StagePolicy, desired_hosts, desired_replicas
from rejoinder.core.settings.settings import Autoscaling, HostSettings, Settings

LIMITS = {"target": 60.0, "headroom": 0.1, "lag_limit_s": 0.05}


@given(st.integers(0, 5000), st.floats(0, 1), st.integers(1, 50))
def test_hosts_hold_the_calls_and_the_headroom(sessions: int, lag_s: float, running: int) -> None:
    """The number of hosts is the smallest that has room for all calls and a headroom of 10%, and at least 1.

    If the event loop lag exceeds the limit of 50 ms, there is also at least one host more than now.
    """
    hosts = desired_hosts(sessions, lag_s, running, most=100, **LIMITS)
    assert hosts * 60 >= sessions * 1.1
    if lag_s > 0.05:
        assert hosts > running
    else:
        assert hosts == max(1, math.ceil(sessions * 1.1 / 60))


@given(st.floats(0, 100), st.floats(0, 5), st.integers(1, 50))
def test_a_stage_grows_by_its_wait_and_at_most_doubles(ongoing: float, queue_s: float, running: int) -> None:
    """A stage whose requests wait longer than the limit (50 ms) gets more replicas, at most twice as many.

    It never shrinks below one replica for each four requests, the target.
    """
    replicas = desired_replicas(ongoing, queue_s, running, target=4, queue_limit_s=0.05)
    if queue_s > 0.05:
        assert running < replicas <= 2 * running
    elif replicas < running:
        assert replicas * 4 >= ongoing


def test_a_stage_does_not_flap() -> None:
    """With a target of 4 requests per replica, three replicas stay for 7.5 requests and become two only for 6."""
    assert desired_replicas(7.5, 0, 3, target=4, queue_limit_s=0.05) == 3
    assert desired_replicas(6.0, 0, 3, target=4, queue_limit_s=0.05) == 2


def context(running: int, ongoing: float, **signals: list[float]) -> SimpleNamespace:
    """Return an autoscaling context as Serve passes it: each signal has an old value (-1) and a new one per replica."""
    raw = {
        name: {
            f"r{index}": [SimpleNamespace(value=-1.0), SimpleNamespace(value=value)]
            for index, value in enumerate(values)
        }
        for name, values in signals.items()
    }
    return SimpleNamespace(current_num_replicas=running, total_num_requests=ongoing, raw_metrics=raw, policy_state={})


def test_the_policies_read_the_newest_signals() -> None:
    """The policies use the newest signals: the sum of sessions, the maximum lag and waiting time, 0 if missing."""
    hosts = HostPolicy(**LIMITS, most=100)
    assert hosts(context(2, 0, sessions=[60, 80], loop_lag_s=[0.001, 0.002])) == (3, {})
    assert hosts(context(1, 0)) == (1, {})
    stage = StagePolicy(target=4, queue_limit_s=0.05)
    assert stage(context(2, 8, queue_s=[0.0, 0.09])) == (4, {})
    assert stage(context(2, 8)) == (2, {})


def test_serve_accepts_the_policies() -> None:
    """An application with autoscaling builds: Serve imports and serializes both policies."""
    grows = Autoscaling(min_replicas=1, max_replicas=3)
    settings = Settings(host=HostSettings(autoscaling=grows))
    assert bind(settings)
