"""Nodes as failure domains: enough nodes and replicas that some nodes may die, and the network traffic of each node.

If `spare` of n nodes die, the others must still have the replicas that the target needs. With k replicas of a component
on each node at most, the dead nodes take at most spare * k of them. The smallest k with which n - spare nodes can hold
the needed replicas is k = ceil(needed / (n - spare)), and needed + spare * k replicas are deployed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from rejoinder.core.capacity.sizing import NodeGroup, NodeType, SizedComponent, Traffic

HAPROXY_CORES = 0.0013
"""CPU cores of HAProxy per session: 1.3 ms of CPU per session and second at 60 sessions (docs/results/density.md)."""

HEAD_CORES_PER_REPLICA = 0.027
"""CPU cores of Ray's own processes per replica: 16% of a core with six replicas (docs/results/density.md)."""

NO_TRAFFIC = Traffic(0.0, 0.0, 0.0, 0.0)

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Overhead:
    """CPU cores of a group of nodes that no replica reserves.

    Attributes:
        entry: Cores of the HAProxies of all nodes together.
        head: Cores of Ray's head, on one of the nodes.
    """

    entry: float = 0.0
    head: float = 0.0


def spread(
    node: NodeType, components: Sequence[SizedComponent], spare: int, overhead: Overhead = Overhead()
) -> tuple[NodeGroup, list[SizedComponent]]:
    """Return the fewest nodes for components of which `spare` may die, and the components with their spare replicas.

    Args:
        node: Type of the machines.
        components: Components with the replicas that the target needs. Their own spares are replaced.
        spare: Number of nodes that may be missing.
        overhead: CPU cores that no replica reserves.

    Raises:
        ValueError: A replica does not fit into an empty node.
    """
    if not components:
        return NodeGroup(node, 0, 0, {}), []
    for component in components:
        _check_fits(component, node)
    for nodes in count(spare + 1):
        most = [math.ceil(c.needed / (nodes - spare)) if spare else c.needed for c in components]
        sized = [replace(component, spare=spare * k) for component, k in zip(components, most, strict=True)]
        if _placed(node, nodes, list(zip(sized, most, strict=True)), spare=spare, overhead=overhead):
            break
    limits = {component.unit.name: k for component, k in zip(sized, most, strict=True)}
    replicas = {component.unit.name: component.replicas for component in sized}
    return NodeGroup(node, nodes, spare, replicas, most_per_node=limits if spare else {}), sized


def _check_fits(component: SizedComponent, node: NodeType) -> None:
    unit = component.unit
    if not _fits((unit.cores, unit.memory_mb, unit.gpus), _room(node, 0.0)):
        raise ValueError(
            f"one {unit.name} replica ({unit.cores:g} cores, {unit.memory_mb:.0f} MB, {unit.gpus:g} GPUs) "
            f"does not fit into a {node.name} node ({node.cores:g}, {node.memory_mb:.0f} MB, {node.gpus:g})"
        )


def _room(node: NodeType, taken_cores: float) -> list[float]:
    left = 1 - node.reserve
    return [node.cores * left - taken_cores, node.memory_mb * left, node.gpus]


def _placed(
    node: NodeType, nodes: int, components: Sequence[tuple[SizedComponent, int]], *, spare: int, overhead: Overhead
) -> bool:
    """Return True if the replicas fit the nodes, with at most the given number of each component on one node.

    The largest replicas are placed first, each on the node that has the fewest of its component. A node's part of the
    entry's cores is that while the spare nodes are missing.
    """
    rooms = [_room(node, overhead.entry / (nodes - spare)) for _ in range(nodes)]
    rooms[0][0] -= overhead.head
    for component, most in sorted(components, key=lambda pair: _size(pair[0])):
        unit, held = component.unit, [0] * nodes
        needed = (unit.cores, unit.memory_mb, unit.gpus)
        for _ in range(component.replicas):
            free = [at for at in range(nodes) if held[at] < most and _fits(needed, rooms[at])]
            if not free:
                return False
            at = min(free, key=lambda place: (held[place], -rooms[place][0]))
            held[at] += 1
            for resource, amount in enumerate(needed):
                rooms[at][resource] -= amount
    return True


def _size(component: SizedComponent) -> tuple[float, float, float]:
    unit = component.unit
    return (-unit.gpus, -unit.memory_mb, -unit.cores)


def _fits(needed: Iterable[float], room: Sequence[float]) -> bool:
    return all(amount <= left + _ROUNDING for amount, left in zip(needed, room, strict=True))


def node_traffic(edge: Traffic, near: Sequence[Traffic], far: Sequence[Traffic], nodes: int) -> Traffic:
    """Return the mean traffic of one host node's network interface: received (`in_`) and sent (`out_`).

    A caller enters at any node, and its host runs on any node, as do the stages of the same group. So of what runs
    between two processes of the group, the part 1 / nodes stays on one node (loopback) and does not count. The rest is
    sent by one node and received by another, so it counts once in each direction.

    Args:
        edge: Traffic between all callers and the hosts. It also runs between the entry and the host.
        near: Traffic between the hosts and each stage on nodes of the same group.
        far: Traffic between the hosts and each stage on other nodes: `in_` is received by the stage.
        nodes: Number of nodes, without the spare ones.
    """
    inside = sum(near, edge)
    inner = Traffic(*(inside.in_kbps + inside.out_kbps,) * 2, *(inside.in_pps + inside.out_pps,) * 2)
    away = sum(far, NO_TRAFFIC)
    sent = Traffic(away.out_kbps, away.in_kbps, away.out_pps, away.in_pps)
    return (edge + inner.times(1 - 1 / nodes) + sent).times(1 / nodes)
