"""Sizing: from a target to replicas, cores, GPUs, memory, nodes and network traffic, by closed formulas.

A full host refuses sessions. Erlang B therefore gives the number of sessions to admit, so that at most a given share of
the offered sessions is refused. A busy stage makes requests wait. Erlang C therefore gives the slots of each stage, so
that the wait fits into the time that the latency target leaves after the service times.

The result is a first estimate, which a simulation of all queues (`loadtest.capacity`) corrects. The formulas assume one
queue for all replicas. They ignore that a caller who waits for an answer sends no further request.

Every figure carries its basis, because a plan may mix measured and published numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from rejoinder.core.capacity.erlang import Queue, blocking_in_reach, slots_for_blocking, slots_for_wait

WAIT_QUANTILE = 0.95
"""Quantile of a stage's wait that must fit into the target."""

REACH = 8
"""Most hosts that HAProxy sends one caller to: the first one, and seven after refusals."""


class Basis(Enum):
    """Basis of a figure in a capacity plan: where the number comes from.

    MEASURED: measured. PREDICTED: computed from measurements, within the measured range. EXTRAPOLATED: computed from
    measurements, outside the measured range. PUBLISHED: stated by a provider or the latency guide. GIVEN: an input of
    the plan. DEFAULT: a figure of the documentation, because the calibration has none.
    """

    MEASURED = "measured"
    PREDICTED = "predicted"
    EXTRAPOLATED = "extrapolated"
    PUBLISHED = "published"
    GIVEN = "given"
    DEFAULT = "default"


def basis_at(value: float, least: float, most: float) -> Basis:
    """Return PREDICTED if `value` is in the measured range from `least` to `most`, else EXTRAPOLATED."""
    return Basis.PREDICTED if least <= value <= most else Basis.EXTRAPOLATED


@dataclass(frozen=True, slots=True)
class Figure:
    """Number in a capacity plan, with its unit, its basis and its source. `source` is a text for reports."""

    value: float
    unit: str
    basis: Basis
    source: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaUnit:
    """One replica of a component: the requests that it serves at the same time, and the resources that it needs.

    Attributes:
        name: Name of the component.
        slots: Requests (for a host, sessions) that it serves at the same time.
        cores: CPU cores.
        memory_mb: Memory in MB.
        gpus: GPUs, possibly a fraction of one.
    """

    name: str
    slots: int
    cores: float
    memory_mb: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class StageWork:
    """Load of one turn on a stage.

    Attributes:
        requests_per_turn: Mean number of requests to the stage in one turn.
        hold_s: Mean time that a request occupies a slot, in seconds.
        scv: Squared coefficient of variation of that time.
    """

    requests_per_turn: float
    hold_s: float
    scv: float

    def queue(self, turns_per_s: float) -> Queue:
        """Return the stage's queue at this many turns per second, with one slot.

        The number of slots is a placeholder: `slots_for_wait` computes the number that the stage needs.
        """
        return Queue(turns_per_s * self.requests_per_turn, self.hold_s, 1, self.scv)


@dataclass(frozen=True, slots=True)
class SizedComponent:
    """Number of replicas of a component.

    Attributes:
        unit: One replica.
        needed: Replicas that the target needs.
        spare: Additional replicas, for the time when a replica fails or restarts.
    """

    unit: ReplicaUnit
    needed: int
    spare: int

    @property
    def replicas(self) -> int:
        """All replicas, spare ones included."""
        return self.needed + self.spare

    @property
    def cores(self) -> float:
        """Cores of all replicas."""
        return self.replicas * self.unit.cores

    @property
    def gpus(self) -> float:
        """GPUs of all replicas."""
        return self.replicas * self.unit.gpus

    @property
    def memory_mb(self) -> float:
        """Memory of all replicas in MB."""
        return self.replicas * self.unit.memory_mb


def hosts(offered_sessions: float, refused: float, unit: ReplicaUnit, spare: int) -> tuple[SizedComponent, int]:
    """Compute how many hosts are needed to refuse at most a given share of the sessions.

    A caller reaches at most `REACH` hosts, so many hosts need more places than one pool.

    Args:
        offered_sessions: Mean number of sessions if none were refused.
        refused: Share of the sessions that may be refused, from 0 to 1.
        unit: One host. Its slots are sessions.
        spare: Additional hosts.

    Returns:
        The number of hosts as a `SizedComponent`, and the number of sessions that the hosts admit, spare ones excluded.
    """
    needed = max(1, math.ceil(slots_for_blocking(offered_sessions, refused) / unit.slots))
    while blocking_in_reach(offered_sessions, needed, unit.slots, REACH) > refused:
        needed += 1
    return SizedComponent(unit, needed, spare), needed * unit.slots


def replicas(work: StageWork, unit: ReplicaUnit, turns_per_s: float, most_wait_s: float) -> int:
    """Return the smallest number of replicas with which 95% of a stage's requests wait at most `most_wait_s` seconds.

    The formula assumes that all replicas share one queue.
    """
    slots = slots_for_wait(work.queue(turns_per_s), WAIT_QUANTILE, most_wait_s)
    return max(1, math.ceil(slots / unit.slots))


@dataclass(frozen=True, slots=True)
class NodeType:
    """Type of machine.

    Attributes:
        name: Its name.
        cores: CPU cores.
        memory_mb: Memory in MB.
        gpus: Number of GPUs.
        reserve: Share of cores and memory that is left to the operating system, 0 to 1.
        per_hour: Price of one machine for one hour, in the currency of the price file. None if it is unknown.
        gpu: Kind of GPU as Ray names it, for example L4. Empty if it is unknown or there is none.
    """

    name: str
    cores: float
    memory_mb: float
    gpus: float = 0.0
    reserve: float = 0.1
    per_hour: float | None = None
    gpu: str = ""


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """Machines of one type, and the replicas that they run.

    Attributes:
        type: The type of machine.
        nodes: Number of machines, spare ones included.
        spare: Number of spare machines.
        replicas: Number of replicas, spare ones included, by name of the component.
        most_per_node: Most replicas on one node, by name of the component. Empty without spare nodes.
    """

    type: NodeType
    nodes: int
    spare: int
    replicas: dict[str, int]
    most_per_node: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Network traffic of a component: received (`in_`) and sent (`out_`), in kilobits and packets per second."""

    in_kbps: float
    out_kbps: float
    in_pps: float
    out_pps: float

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.in_kbps + other.in_kbps,
            self.out_kbps + other.out_kbps,
            self.in_pps + other.in_pps,
            self.out_pps + other.out_pps,
        )

    def times(self, count: float) -> Traffic:
        """Return this traffic multiplied by `count`, for example by a number of sessions."""
        return Traffic(self.in_kbps * count, self.out_kbps * count, self.in_pps * count, self.out_pps * count)

    @property
    def mbps(self) -> float:
        """Traffic of both directions in megabits per second."""
        return (self.in_kbps + self.out_kbps) / 1000

    @property
    def pps(self) -> float:
        """Packets per second of both directions."""
        return self.in_pps + self.out_pps


MTU_PAYLOAD = 1448
"""Payload bytes of a full TCP segment over IPv4 with timestamps, at an MTU of 1500."""

SEGMENT_HEADERS = 52
"""Header bytes of a segment: IPv4 20, TCP 20, TCP timestamps 12."""


def messages(bytes_in: float, bytes_out: float, in_per_s: float, out_per_s: float) -> Traffic:
    """Return the TCP traffic of messages of a given size and rate.

    Packet headers are counted. Packets that only acknowledge others are not.

    Args:
        bytes_in: Size of a received message in bytes.
        bytes_out: Size of a sent message in bytes.
        in_per_s: Received messages per second.
        out_per_s: Sent messages per second.
    """

    def one_way(size: float, per_s: float) -> tuple[float, float]:
        segments = max(1, math.ceil(size / MTU_PAYLOAD)) if per_s else 0
        return (size + segments * SEGMENT_HEADERS) * 8 * per_s / 1000, segments * per_s

    (in_kbps, in_pps), (out_kbps, out_pps) = one_way(bytes_in, in_per_s), one_way(bytes_out, out_per_s)
    return Traffic(in_kbps, out_kbps, in_pps, out_pps)
