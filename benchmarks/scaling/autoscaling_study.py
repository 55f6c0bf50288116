"""Comparison of the autoscaling policies with Serve's own policy: a day, a fivefold spike, and a loss of nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.scaling.controller import SERVE_DEFAULTS, SimulatedController, stock_policy
from benchmarks.scaling.host_load import HostSimulation, SimulatedHosts
from benchmarks.scaling.stage_load import NodeLoss, SimulatedStage, StageSimulation
from deployments.serving.autoscaling import HostPolicy, StagePolicy, replicas_for
from rejoinder.core.settings.settings import Autoscaling

SIZES = (5, 50, 200)
"""Numbers of replicas that the load before a spike or a loss needs, and the peak of the day."""

DAY_S = 86_400.0
NIGHT = 0.1
"""Load at night as a share of the load at noon."""

SPIKE = 5.0
RAMP_S = 60.0
CALM_S = 900.0
"""Seconds before a spike or a loss, and of a spike."""

AFTER_S = 1800.0
"""Seconds after a spike or a loss."""

STOCK_SHARE = 0.7
"""Target of Serve's own policy as a share of the slots, which leaves room for waiting times of zero."""

STAGE = SimulatedStage()
HOSTS = SimulatedHosts()
STAGE_START_S = 20.0
HOST_START_S = 30.0
HOST_TARGET = 64.0


@dataclass(frozen=True, slots=True)
class LoadScenario:
    """A load over time.

    Attributes:
        name: Name for the table.
        duration_s: Length in seconds.
        factor: Returns the load at a time in seconds, as a multiple of the load that the size stands for.
        loss: A loss of nodes; None for none.
    """

    name: str
    duration_s: float
    factor: Callable[[float], float]
    loss: NodeLoss | None = None


def day(now: float) -> float:
    """Return the load of a day that begins at night: a cosine from NIGHT to 1 and back."""
    return NIGHT + (1 - NIGHT) * (1 - math.cos(2 * math.pi * now / DAY_S)) / 2


def spike(now: float) -> float:
    """Return the load of a spike: 1, within RAMP_S seconds SPIKE, after CALM_S seconds back to 1 within RAMP_S."""
    up = min(1.0, max(0.0, (now - CALM_S) / RAMP_S))
    down = min(1.0, max(0.0, (now - 2 * CALM_S) / RAMP_S))
    return 1 + (SPIKE - 1) * (up - down)


def steady(now: float) -> float:
    """Return the load 1 at any time."""
    return 1.0


SCENARIOS = (
    LoadScenario("day", DAY_S, day),
    LoadScenario("spike", 2 * CALM_S + AFTER_S, spike),
    LoadScenario("loss", CALM_S + AFTER_S, steady, NodeLoss(CALM_S)),
)


@dataclass(frozen=True, slots=True)
class ScalingRow:
    """Result of one simulation.

    Attributes:
        scenario: Name of the scenario.
        size: Replicas that the load needs.
        policy: Name of the policy.
        most: Largest number of replicas.
        reversals: Changes of direction of the planned replicas.
        refused: Share of the requests or calls that were refused.
        late: Share of the requests that waited longer than the limit; None for hosts.
        idle: Share of the slots or places that were free.
    """

    scenario: str
    size: int
    policy: str
    most: int
    reversals: int
    refused: float
    late: float | None
    idle: float


def stage_load(size: int) -> float:
    """Return the largest number of requests per second for which the queueing model asks for `size` replicas."""
    low, high = 0.0, size * STAGE.slots / STAGE.service_s
    for _ in range(30):
        middle = (low + high) / 2
        offered = middle * STAGE.service_s
        if replicas_for(offered, STAGE.service_s, target=STAGE.slots, queue_limit_s=STAGE.limit_s) <= size:
            low = middle
        else:
            high = middle
    return low


def stage_row(scenario: LoadScenario, size: int, *, stock: bool, seed: int = 1) -> ScalingRow:
    """Simulate a stage under our policy, or under Serve's with its default delays if `stock`."""
    rate = stage_load(size)
    first = max(1, math.ceil(size * scenario.factor(0.0)))
    if stock:
        scaling = SERVE_DEFAULTS.model_copy(update={"target_ongoing_requests": STOCK_SHARE * STAGE.slots})
        controller = SimulatedController(stock_policy, scaling, start_s=STAGE_START_S, running=first, planned=first)
    else:
        scaling = Autoscaling(max_replicas=10_000)
        policy = StagePolicy(target=STAGE.slots, queue_limit_s=STAGE.limit_s)
        controller = SimulatedController(policy, scaling, start_s=STAGE_START_S, running=first, planned=first)
    totals = StageSimulation(STAGE, controller, seed).run(
        scenario.duration_s, lambda now: rate * scenario.factor(now), scenario.loss
    )
    return ScalingRow(
        scenario.name,
        size=size,
        policy="Serve" if stock else "Rejoinder",
        most=totals.most,
        reversals=controller.reversals,
        refused=totals.share(totals.refused),
        late=totals.share(totals.late),
        idle=totals.idle_share,
    )


def host_row(scenario: LoadScenario, size: int, *, stock: bool, seed: int = 1) -> ScalingRow:
    """Simulate the session hosts under our policy, or under Serve's with its default delays if `stock`."""
    headroom = Autoscaling().headroom
    expected = 1 + max(headroom, HOST_START_S / HOSTS.call_s)
    calls = size * HOST_TARGET / expected
    first = max(1, math.ceil(size * scenario.factor(0.0)))
    if stock:
        scaling = SERVE_DEFAULTS.model_copy(update={"target_ongoing_requests": HOST_TARGET})
        controller = SimulatedController(stock_policy, scaling, start_s=HOST_START_S, running=first, planned=first)
    else:
        scaling = Autoscaling(max_replicas=10_000, target_ongoing_requests=HOST_TARGET)
        policy = HostPolicy(HOST_TARGET, HOSTS.max_sessions, headroom, start_s=HOST_START_S, lag_limit_s=0.05)
        controller = SimulatedController(policy, scaling, start_s=HOST_START_S, running=first, planned=first)
    totals = HostSimulation(HOSTS, controller, seed).run(
        scenario.duration_s,
        lambda now: calls / HOSTS.call_s * scenario.factor(now),
        scenario.loss,
        begin=round(calls * scenario.factor(0.0)),
    )
    return ScalingRow(
        scenario.name,
        size=size,
        policy="Serve" if stock else "Rejoinder",
        most=totals.most,
        reversals=controller.reversals,
        refused=totals.refused / max(1, totals.calls),
        late=None,
        idle=totals.idle_share,
    )


HEADER = (
    "| scenario | size | policy | most replicas | reversals | refused | late | idle |",
    "|---|---|---|---|---|---|---|---|",
)


def line(row: ScalingRow) -> str:
    """Return the row as a line of a Markdown table."""
    late = "" if row.late is None else f"{row.late:.2%}"
    return (
        f"| {row.scenario} | {row.size} | {row.policy} | {row.most} | {row.reversals} | {row.refused:.2%} | {late} "
        f"| {row.idle:.0%} |"
    )


def report(sizes: tuple[int, ...] = SIZES, scenarios: tuple[LoadScenario, ...] = SCENARIOS) -> Iterator[str]:
    """Yield the lines of two Markdown tables of autoscaling policies: one for a stage's replicas, one for the hosts.

    Args:
        sizes: Numbers of replicas that the load needs on average.
        scenarios: The courses of the load.
    """
    for title, row in (("Stage", stage_row), ("Hosts", host_row)):
        yield from (f"## {title}", "", *HEADER)
        for scenario in scenarios:
            for size in sizes:
                for stock in (False, True):
                    yield line(row(scenario, size, stock=stock))
        yield ""
