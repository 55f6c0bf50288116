"""What a plan costs, and how the cost depends on the latency limit and on the nodes that may die."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from loadtest.capacity.calibration import Calibration
from loadtest.capacity.inversion import CapacityTarget
from loadtest.capacity.plan import Plan, PlanResources, SolvedPlan, solve, spread_out
from loadtest.capacity.turn_network import TurnNetwork
from rejoinder.core.capacity.sizing import NodeGroup
from rejoinder.core.errors import ConfigError

MONTH_HOURS = 730
"""Hours of an average month: 365 days / 12."""

P95_FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Multiples of the target's limit of the 95th percentile whose cost is computed."""

SPARES = (0, 1, 2, 3)
"""Numbers of nodes that may die whose cost is computed, besides the target's own."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Price of a plan's nodes per hour: of those at the highest load, and of those at the lowest load of the day.

    `low_per_hour` equals `per_hour` if the plan is for one load.
    """

    per_hour: float
    low_per_hour: float

    @property
    def per_month(self) -> float:
        """Price of a month in which all nodes run."""
        return self.per_hour * MONTH_HOURS


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """The nodes and the price of a changed target.

    Attributes:
        change: The changed value, in words.
        chosen: Whether it is the value of the plan.
        nodes: Number of nodes. None if the target cannot be met.
        machines: Number and type of the machines, in words. Empty if the target cannot be met.
        per_hour: Price per hour. None if it is unknown, or the target cannot be met.
        why: Why the target cannot be met. Empty if it can.
    """

    change: str
    chosen: bool
    nodes: int | None
    per_hour: float | None
    machines: str = ""
    why: str = ""


def machines(groups: Sequence[NodeGroup]) -> str:
    """Return the number and type of the machines of each group, such as "3 x c-16 and 2 x g-l4"."""
    return " and ".join(f"{group.nodes} x {group.type.name}" for group in groups)


def price(groups: Sequence[NodeGroup], nodes: Sequence[int]) -> float | None:
    """Return the price per hour of numbers of nodes, one for each group. None if a machine type has no price."""
    each = [group.type.per_hour for group in groups]
    if None in each:
        return None
    return sum(count * (hour or 0.0) for count, hour in zip(nodes, each, strict=True))


def cost(made: Plan) -> Cost | None:
    """Return the price of a plan's nodes. None if a machine type has no price."""
    total = price(made.groups, [group.nodes for group in made.groups])
    low = price(made.groups, made.low.nodes) if made.low else total
    return None if total is None or low is None else Cost(total, low)


def spare_sensitivity(made: Plan, resources: PlanResources) -> Iterator[SensitivityRow]:
    """Yield the nodes and the price for each number of nodes that may die. The needed replicas are the same."""
    for spare in sorted({*SPARES, made.target.spare}):
        groups, _ = spread_out(made.components, resources, spare, made.inverted.admitted)
        yield _row(f"{spare} node(s) may die", spare == made.target.spare, groups)


def p95_sensitivity(
    made: Plan, calibration: Calibration, network: TurnNetwork, resources: PlanResources
) -> Iterator[SensitivityRow]:
    """Yield the nodes and the price for limits of the 95th percentile around the target's.

    Each row but the target's needs a simulation of its own.

    Args:
        made: The plan.
        calibration: Its calibration.
        network: The network that it was planned with.
        resources: Its machine types.
    """
    for factor in P95_FACTORS:
        limit = made.target.p95_ms * factor
        change = f"p95 at most {limit:.0f} ms"
        if factor == 1:
            yield _row(change, True, made.groups)
            continue
        try:
            found: SolvedPlan = solve(calibration, network, _with_limit(made.target, limit), resources)
        except ConfigError as error:
            yield SensitivityRow(change, False, nodes=None, per_hour=None, why=error.message)
        else:
            yield _row(change, False, found.groups)


def _with_limit(target: CapacityTarget, p95_ms: float) -> CapacityTarget:
    return replace(target, p95_ms=p95_ms, low_sessions=None)


def _row(change: str, chosen: bool, groups: Sequence[NodeGroup]) -> SensitivityRow:
    nodes = [group.nodes for group in groups]
    return SensitivityRow(change, chosen, sum(nodes), price(groups, nodes), machines=machines(groups))
