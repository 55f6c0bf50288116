"""Tests of the simulated autoscaler: its delays are Serve's, and it starts, stops and loses replicas."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ray.serve.autoscaling_policy import _apply_delay_logic
from ray.serve.config import AutoscalingConfig

from benchmarks.scaling.controller import DelayedDecision, SimulatedController, stock_policy
from rejoinder.core.settings.settings import Autoscaling


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from([0.1, 1.0, 3.0])), max_size=60))
def test_the_delays_are_those_of_serve(wishes: list[tuple[int, float]]) -> None:
    """For any wishes of a policy, the simulated delays give the same numbers of replicas as Serve's own function.

    A wish is a number of replicas and the seconds until the next wish. The delays are 2 s up and 5 s down.
    """
    config = AutoscalingConfig(min_replicas=1, max_replicas=9, upscale_delay_s=2, downscale_delay_s=5)
    ours, planned, expected, now = DelayedDecision(2, 5), 4, 4, 0.0
    state: dict[str, Any] = {}
    for desired, pause_s in wishes:
        planned = ours.decide(desired, planned, now)
        expected, state = _apply_delay_logic(desired, expected, config, state, _now=now)
        assert planned == expected
        now += pause_s


def wanting(*numbers: int) -> SimulatedController:
    """Return a controller with two running replicas, whose policy wants these numbers one after another.

    The delays are 0 s, and a replica takes 10 s to start.
    """
    wishes = iter(numbers)
    scaling = Autoscaling(max_replicas=9, upscale_delay_s=0, downscale_delay_s=0)
    return SimulatedController(lambda _: (next(wishes), {}), scaling, start_s=10, running=2, planned=2)


def test_replicas_start_later_and_stop_at_once() -> None:
    """Two further replicas run after their 10 s. A cut cancels starting replicas before it stops running ones."""
    controller = wanting(4, 4, 6, 1)
    assert controller.tick({}, 0, 0.0) == 0
    assert [controller.started(now) for now in (9.9, 10.0)] == [0, 2]
    controller.tick({}, 0, 10.0)
    controller.tick({}, 0, 11.0)
    assert controller.tick({}, 0, 12.0) == 3
    assert (controller.running, controller.started(60.0)) == (1, 0)
    assert controller.reversals == 1


def test_lost_replicas_are_replaced_without_a_decision() -> None:
    """A lost replica runs again after the time for another node and the start. The planned number stays."""
    controller = wanting(2)
    controller.lose(1, 5.0, replace_s=60.0)
    assert (controller.running, controller.planned) == (1, 2)
    assert [controller.started(now) for now in (74.0, 75.0)] == [0, 1]


def test_the_stock_policy_is_the_one_of_serve() -> None:
    """Serve's own policy divides the ongoing requests by the target: 12 requests and a target of 3 give 4 replicas."""
    scaling = Autoscaling(max_replicas=9, upscale_delay_s=0, target_ongoing_requests=3)
    controller = SimulatedController(stock_policy, scaling, start_s=10, running=2, planned=2)
    controller.tick({}, 12.0, 0.0)
    assert controller.planned == 4
