"""When replicas are added and removed, as arithmetic."""

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
def test_hosts_hold_the_calls_and_a_share_more(sessions: int, lag_s: float, running: int) -> None:
    """Never fewer than the calls need at their target with headroom; a late loop asks for one more than there are."""
    wanted = desired_hosts(sessions, lag_s, running, most=100, **LIMITS)
    assert wanted * 60 >= sessions * 1.1
    if lag_s > 0.05:
        assert wanted > running
    else:
        assert wanted == max(1, math.ceil(sessions * 1.1 / 60))


@given(st.floats(0, 100), st.floats(0, 5), st.integers(1, 50))
def test_a_stage_grows_by_its_wait_and_at_most_doubles(ongoing: float, queue_s: float, running: int) -> None:
    """Above the limit it grows, never by more than two; without waiting it never shrinks below its work."""
    wanted = desired_replicas(ongoing, queue_s, running, target=4, queue_limit_s=0.05)
    if queue_s > 0.05:
        assert running < wanted <= 2 * running
    elif wanted < running:
        assert wanted * 4 >= ongoing


def test_a_stage_does_not_flap_at_the_border() -> None:
    """Three replicas that would just fit into two stay; when they clearly fit, one goes."""
    assert desired_replicas(7.5, 0, 3, target=4, queue_limit_s=0.05) == 3
    assert desired_replicas(6.0, 0, 3, target=4, queue_limit_s=0.05) == 2


def context(running: int, ongoing: float, **signals: list[float]) -> SimpleNamespace:
    raw = {
        name: {
            f"r{index}": [SimpleNamespace(value=-1.0), SimpleNamespace(value=value)]
            for index, value in enumerate(values)
        }
        for name, values in signals.items()
    }
    return SimpleNamespace(current_num_replicas=running, total_num_requests=ongoing, raw_metrics=raw, policy_state={})


def test_the_policies_read_the_newest_signals() -> None:
    """Sessions are summed over hosts, lag and waits are the worst replica's; what reports nothing yet counts 0."""
    hosts = HostPolicy(**LIMITS, most=100)
    assert hosts(context(2, 0, sessions=[60, 80], loop_lag_s=[0.001, 0.002])) == (3, {})
    assert hosts(context(1, 0)) == (1, {})
    stage = StagePolicy(target=4, queue_limit_s=0.05)
    assert stage(context(2, 8, queue_s=[0.0, 0.09])) == (4, {})
    assert stage(context(2, 8)) == (2, {})


def test_serve_takes_the_policies() -> None:
    """An application that may scale builds: Serve imports and ships both policies."""
    grows = Autoscaling(min_replicas=1, max_replicas=3)
    settings = Settings(host=HostSettings(autoscaling=grows))
    assert bind(settings)
