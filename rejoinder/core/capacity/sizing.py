"""From a target back to what to buy: replicas, cores, GPUs, memory, nodes and network, by arithmetic that is shown.

Two layers. Admission refuses (Erlang B): hosts must admit so many sessions that of those offered at most a small share
is refused. Stages wait (Erlang C): at that admission each stage needs so many slots that its wait stays within what
the target leaves beside the services' own times. The result is a start, which the simulated network then corrects:
the formulas know neither separate queues a replica nor callers who wait before they ask again.

Every figure carries where it comes from, because a plan that mixes measurements with published numbers must say which
is which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.capacity.erlang import Queue, slots_for_blocking, slots_for_wait

WAIT_QUANTILE = 0.95


class Basis(Enum):
    """Where a figure comes from. PREDICTED: computed from measurements within their range; EXTRAPOLATED: outside."""

    MEASURED = "measured"
    PREDICTED = "predicted"
    EXTRAPOLATED = "extrapolated"
    PUBLISHED = "published"
    GIVEN = "given"


def basis_at(value: float, least: float, most: float) -> Basis:
    """Of what is predicted at `value` from measurements between `least` and `most`."""
    return Basis.PREDICTED if least <= value <= most else Basis.EXTRAPOLATED


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, its unit, and where it comes from."""

    value: float
    unit: str
    basis: Basis
    source: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaUnit:
    """One replica of a component: what it serves at once and what it occupies."""

    name: str
    slots: int
    cores: float
    memory_mb: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class StageWork:
    """What one turn asks of a stage: requests, and how long each holds a slot (`scv`: its squared variation)."""

    requests_per_turn: float
    hold_s: float
    scv: float

    def queue(self, turns_per_s: float) -> Queue:
        return Queue(turns_per_s * self.requests_per_turn, self.hold_s, 1, self.scv)


@dataclass(frozen=True, slots=True)
class SizedComponent:
    """A component in the plan: `needed` replicas carry the target, `spare` more carry it while so many are away."""

    unit: ReplicaUnit
    needed: int
    spare: int

    @property
    def replicas(self) -> int:
        return self.needed + self.spare

    @property
    def cores(self) -> float:
        return self.replicas * self.unit.cores

    @property
    def gpus(self) -> float:
        return self.replicas * self.unit.gpus

    @property
    def memory_mb(self) -> float:
        return self.replicas * self.unit.memory_mb


def hosts(offered_sessions: float, refused: float, unit: ReplicaUnit, spare: int) -> tuple[SizedComponent, int]:
    """Hosts of `unit.slots` sessions each, and the sessions that the needed ones admit.

    So many that of `offered_sessions` (the mean number there would be if none were refused) the share `refused` finds
    no place.
    """
    admitted = slots_for_blocking(offered_sessions, refused)
    needed = max(1, math.ceil(admitted / unit.slots))
    return SizedComponent(unit, needed, spare), needed * unit.slots


def replicas(work: StageWork, unit: ReplicaUnit, turns_per_s: float, most_wait_s: float) -> int:
    """The fewest replicas whose slots, behind one queue, keep the wait's 95th percentile within `most_wait_s`."""
    slots = slots_for_wait(work.queue(turns_per_s), WAIT_QUANTILE, most_wait_s)
    return max(1, math.ceil(slots / unit.slots))


@dataclass(frozen=True, slots=True)
class NodeType:
    """A machine one can buy. `reserve` is the share of its cores and memory that stays free for the system."""

    name: str
    cores: float
    memory_mb: float
    gpus: float = 0.0
    reserve: float = 0.1


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """`nodes` machines of one type, spare ones included, and the replicas they hold by component."""

    type: NodeType
    nodes: int
    spare: int
    replicas: dict[str, int]


def node_group(node: NodeType, components: Sequence[SizedComponent], spare: int) -> NodeGroup:
    """As many nodes as hold all replicas, largest first into the first node with room, and `spare` more.

    Raises ValueError if a replica does not fit an empty node.
    """
    free: list[list[float]] = []
    units = [component.unit for component in components for _ in range(component.replicas)]
    for unit in sorted(units, key=lambda unit: (-unit.gpus, -unit.memory_mb, -unit.cores)):
        wanted = (unit.cores, unit.memory_mb, unit.gpus)
        room = next((left for left in free if _fits(wanted, left)), None)
        if room is None:
            room = [node.cores * (1 - node.reserve), node.memory_mb * (1 - node.reserve), node.gpus]
            if not _fits(wanted, room):
                raise ValueError(
                    f"one {unit.name} replica ({unit.cores:g} cores, {unit.memory_mb:.0f} MB, {unit.gpus:g} GPUs) "
                    f"does not fit a {node.name} node ({node.cores:g}, {node.memory_mb:.0f} MB, {node.gpus:g})"
                )
            free.append(room)
        for resource, amount in enumerate(wanted):
            room[resource] -= amount
    held = {component.unit.name: component.replicas for component in components}
    return NodeGroup(node, len(free) + (spare if free else 0), spare if free else 0, held)


_ROUNDING = 1e-9


def _fits(wanted: tuple[float, ...], room: Sequence[float]) -> bool:
    return all(amount <= left + _ROUNDING for amount, left in zip(wanted, room, strict=True))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one session, or all of them, send over a network: both directions seen from the component."""

    in_kbps: float
    out_kbps: float
    in_pps: float
    out_pps: float

    def times(self, count: float) -> Traffic:
        return Traffic(self.in_kbps * count, self.out_kbps * count, self.in_pps * count, self.out_pps * count)

    @property
    def mbps(self) -> float:
        return (self.in_kbps + self.out_kbps) / 1000

    @property
    def pps(self) -> float:
        return self.in_pps + self.out_pps


MTU_PAYLOAD = 1448
"""Bytes of a full TCP segment over IPv4 with timestamps at MTU 1500."""
SEGMENT_HEADERS = 52
"""IPv4 20, TCP 20 and its timestamps 12."""


def messages(bytes_in: float, bytes_out: float, in_per_s: float, out_per_s: float) -> Traffic:
    """TCP traffic of so many messages a second, each of so many bytes: full segments, headers, no pure ACKs."""

    def one_way(size: float, per_s: float) -> tuple[float, float]:
        segments = max(1, math.ceil(size / MTU_PAYLOAD)) if per_s else 0
        return (size + segments * SEGMENT_HEADERS) * 8 * per_s / 1000, segments * per_s

    (in_kbps, in_pps), (out_kbps, out_pps) = one_way(bytes_in, in_per_s), one_way(bytes_out, out_per_s)
    return Traffic(in_kbps, out_kbps, in_pps, out_pps)
