"""A capacity plan: the replicas that a target needs, and how well the model fits the calibration runs.

`plan` is the entry point. The fields of `Plan` are the keys of `rejoinder plan --json`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loadtest.capacity import footprint
from loadtest.capacity.calibration import Calibration
from loadtest.capacity.inversion import CapacityTarget, SolvedReplicas, invert
from loadtest.capacity.network_fit import STAGES, session_range
from loadtest.capacity.prediction import Estimate, Prediction, predict, predicted_knee
from loadtest.capacity.side_stages import side_stages
from loadtest.capacity.turn_network import TurnNetwork
from rejoinder.core.capacity.erlang import blocking_in_reach, slots_for_blocking
from rejoinder.core.capacity.failure_domains import HAPROXY_CORES, HEAD_CORES_PER_REPLICA, Overhead, spread
from rejoinder.core.capacity.sizing import REACH, Basis, NodeGroup, NodeType, SizedComponent, Traffic, basis_at, hosts
from rejoinder.core.errors import ConfigError

PERCENTILES = ("p50_ms", "p95_ms", "p99_ms")

KNEE_FOR_S = 120.0


@dataclass(frozen=True, slots=True)
class LevelCheck:
    """Measurement and prediction for one calibration run.

    Attributes:
        sessions: Number of sessions.
        measured: By name: percentiles of voice-to-voice latency in milliseconds (`p50_ms`, `p95_ms`, `p99_ms`), and
            turns per second (`turns_per_s`).
        predicted: The same figures by the same names, from the simulation.
    """

    sessions: int
    measured: dict[str, float]
    predicted: dict[str, float]

    @property
    def errors(self) -> dict[str, float]:
        """Relative error of each figure, by name: predicted / measured - 1."""
        return {name: self.predicted[name] / value - 1 for name, value in self.measured.items() if value}


@dataclass(frozen=True, slots=True)
class Knee:
    """Knee of the calibrated deployment: the maximum number of sessions with which the target's 95th percentile is met.

    Attributes:
        sessions: Number of sessions.
        bound: The resource that limits the sessions, in words: the slots of a stage, or the core of each host.
        basis: PREDICTED if the knee is within the calibrated range, else EXTRAPOLATED.
        turns_per_s: Simulated throughput at the knee, in turns per second.
    """

    sessions: int
    bound: str
    basis: Basis
    turns_per_s: float


@dataclass(frozen=True, slots=True)
class PlannedComponent:
    """One component of the plan.

    Attributes:
        sized: Number of replicas, with the cores, memory and GPUs of each.
        traffic: Network traffic of all replicas together.
        basis: PREDICTED if its load is within the calibrated range, EXTRAPOLATED outside of it, DEFAULT if the
            calibration did not exercise it.
        busy: Share of the component's slots in use while the spare replicas are missing. None if it has no slots.
        source: Where the size comes from if the calibration did not measure it. Empty if it did.
    """

    sized: SizedComponent
    traffic: Traffic
    basis: Basis
    busy: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class LowLoad:
    """What must run at the lowest load of a day, spare ones included.

    Attributes:
        sessions: Mean number of concurrent sessions at that time.
        replicas: Minimum number of replicas, by component.
        nodes: Minimum number of nodes, in the order of the plan's groups.
    """

    sessions: int
    replicas: Mapping[str, int]
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Result of `rejoinder plan`: the replicas that a target needs, and the predicted latency.

    Attributes:
        target: The target of the plan.
        checks: Measurement and prediction for each calibration run.
        knee: Knee of the calibrated deployment.
        inverted: Replicas that meet the target, and their predicted percentiles. The `error` of a percentile is only
            the simulation's sampling error.
        components: Replicas to deploy, by component.
        edge: Network traffic between all callers and the hosts.
        refused: Predicted share of refused calls, 0 to 1: (with all hosts, while the spare hosts are missing).
        basis: PREDICTED if the plan is within the calibrated range, else EXTRAPOLATED.
        intervals_ms: Half width, in milliseconds, of the error interval of `p50_ms`, `p95_ms` and `p99_ms`. None for an
            extrapolated plan.
        per_host: Maximum number of sessions per host.
        groups: Nodes to deploy: those without GPUs, and those with GPUs if a component uses one.
        low: What must run at the lowest load of a day. None if the plan is for one load.
    """

    target: CapacityTarget
    checks: tuple[LevelCheck, ...]
    knee: Knee | None
    inverted: SolvedReplicas
    components: Mapping[str, PlannedComponent]
    edge: Traffic
    refused: tuple[float, float]
    basis: Basis
    intervals_ms: Mapping[str, float] | None
    per_host: int
    groups: tuple[NodeGroup, ...]
    low: LowLoad | None = None

    @property
    def turns_per_s(self) -> float:
        """Predicted throughput of the plan in turns per second."""
        return self.inverted.prediction.turns_per_s.value


@dataclass(frozen=True, slots=True)
class PlanResources:
    """Choices of the user about the resources of a plan.

    Attributes:
        gpus: Number of GPUs per replica, by stage. A stage without an entry uses no GPU.
        cpu_nodes: Machine types without GPUs, of which the cheapest for the plan is taken.
        gpu_nodes: Machine types with GPUs, of which the cheapest for the plan is taken.
        most_per_host: Maximum number of sessions per host. If it is None, only `footprint.HOST_CORES` limits a host.
        engines_calibrated: True if the plan uses the engines of the calibration, false if it uses published engines.
    """

    gpus: Mapping[str, float]
    cpu_nodes: tuple[NodeType, ...]
    gpu_nodes: tuple[NodeType, ...]
    most_per_host: int | None = None
    engines_calibrated: bool = True


def checks(calibration: Calibration, network: TurnNetwork) -> tuple[LevelCheck, ...]:
    """Return measurement and prediction for every calibration run, by rising number of sessions."""
    rows = []
    for level in sorted(calibration.levels, key=lambda level: level.sessions):
        prediction = predict(network, level.sessions)
        measured = {
            "p50_ms": level.p50_ms,
            "p95_ms": level.p95_ms,
            "p99_ms": level.p99_ms,
            "turns_per_s": level.turns_per_s,
        }
        predicted = {name: getattr(prediction, name).value for name in measured}
        rows.append(LevelCheck(level.sessions, measured, predicted))
    return tuple(rows)


def knee(calibration: Calibration, network: TurnNetwork, limit_ms: float) -> Knee:
    """Return the knee of the calibrated deployment.

    The knee is the largest number of sessions whose p95 voice-to-voice latency is within `limit_ms` in a simulation of
    `network`. If the cores of the hosts can serve only fewer sessions, that number is the knee.
    """
    by_slots = predicted_knee(network, limit_ms, KNEE_FOR_S, most=20 * calibration.most.sessions)
    by_core = calibration.most.hosts * footprint.host(calibration).sessions
    sessions = min(by_slots, by_core)
    at_knee = predict(network, max(1, sessions), KNEE_FOR_S)
    return Knee(
        sessions=sessions,
        bound="the hosts' core" if by_core < by_slots else f"the slots of {at_knee.bottleneck}",
        basis=basis_at(sessions, *session_range(calibration.levels)),
        turns_per_s=at_knee.turns_per_s.value,
    )


def target_basis(calibration: Calibration, checked: Sequence[LevelCheck], found: SolvedReplicas) -> Basis:
    """Return PREDICTED if the plan is within the calibrated range, else EXTRAPOLATED.

    The admitted sessions, the turns per second and the replicas of every stage must all be within the range. The upper
    end for turns per second is the highest rate measured or predicted for a run.

    Args:
        calibration: Measurements of the calibration runs.
        checked: Measurement and prediction for each calibration run.
        found: The replicas of the plan.
    """
    levels = calibration.levels
    rate = max(max(check.measured["turns_per_s"], check.predicted["turns_per_s"]) for check in checked)
    bases = [
        basis_at(found.admitted, *session_range(levels)),
        basis_at(found.prediction.turns_per_s.value, 0.0, rate),
    ]
    for stage in STAGES:
        replicas = [level.stages[stage].replicas for level in levels]
        bases.append(basis_at(found.needed[stage], min(replicas), max(replicas)))
    return Basis.PREDICTED if all(basis is Basis.PREDICTED for basis in bases) else Basis.EXTRAPOLATED


def intervals_ms(checked: Sequence[LevelCheck], prediction: Prediction, basis: Basis) -> dict[str, float] | None:
    """Return the half width of the error interval of `p50_ms`, `p95_ms` and `p99_ms` in milliseconds, by these names.

    The half width is the root of the sum of two squares: the largest relative error for a calibration run times the
    prediction, and the simulation's sampling error. The sampling error alone would be too narrow, because it approaches
    0 in large systems and with constant service times.

    Args:
        checked: Measurement and prediction for each calibration run.
        prediction: The prediction for the plan.
        basis: Basis of the plan.

    Returns:
        The half widths. None if `basis` is EXTRAPOLATED, because nothing bounds the error outside the calibrated range.
    """
    if basis is not Basis.PREDICTED:
        return None
    widths = {}
    for name in PERCENTILES:
        estimate: Estimate = getattr(prediction, name)
        model_error = max(abs(check.errors[name]) for check in checked)
        widths[name] = math.hypot(model_error * estimate.value, estimate.error)
    return widths


def plan(calibration: Calibration, network: TurnNetwork, target: CapacityTarget, resources: PlanResources) -> Plan:
    """Compute the plan for a target.

    Args:
        calibration: Measurements of a running deployment.
        network: Queueing network to plan with: fitted to the calibration, or with published engines.
        target: Sessions and latency to plan for.
        resources: The user's choices.

    Raises:
        ConfigError: No number of replicas meets the target, or a host cannot carry a session.
    """
    solved = solve(calibration, network, target, resources)
    found, hosts_needed = solved.inverted, solved.components["host"].sized.needed
    per_host = solved.components["host"].sized.unit.slots
    checked = checks(calibration, network)
    whole = target_basis(calibration, checked, found) if resources.engines_calibrated else Basis.EXTRAPOLATED
    blocked = [
        blocking_in_reach(target.sessions, count, per_host, REACH)
        for count in (solved.components["host"].sized.replicas, hosts_needed)
    ]
    return Plan(
        target,
        checks=checked,
        knee=knee(calibration, network, target.p95_ms),
        inverted=found,
        components=solved.components,
        edge=solved.components["host"].traffic,
        refused=(blocked[0], blocked[1]),
        basis=whole,
        intervals_ms=intervals_ms(checked, found.prediction, whole),
        per_host=per_host,
        groups=solved.groups,
        low=low_load(calibration, network, target, resources=resources, peak=solved),
    )


@dataclass(frozen=True, slots=True)
class SolvedPlan:
    """The sizes of a plan, without the checks of the model.

    Attributes:
        inverted: Replicas of the simulated stages, and their predictions.
        components: Replicas to deploy, by component.
        groups: Nodes to deploy.
    """

    inverted: SolvedReplicas
    components: Mapping[str, PlannedComponent]
    groups: tuple[NodeGroup, ...]


def solve(
    calibration: Calibration,
    network: TurnNetwork,
    target: CapacityTarget,
    resources: PlanResources,
    *,
    full_hosts: bool = True,
) -> SolvedPlan:
    """Return the replicas and nodes for a target. The other arguments and the errors are those of `plan`.

    With `full_hosts`, the stages serve as many sessions as the hosts admit. Without, they serve as many as are exceeded
    with the probability `target.refused` (Erlang B), which is less if few sessions are offered.
    """
    host = footprint.host(calibration, resources.most_per_host)
    sized_hosts, admitted = hosts(target.sessions, target.refused, host.unit, target.spare)
    if not full_hosts:
        admitted = min(admitted, slots_for_blocking(target.sessions, target.refused))
    found = invert(network, target, admitted)
    per_s = found.prediction.turns_per_s.value
    basis = basis_at(admitted, *session_range(calibration.levels))
    edge = footprint.edge_traffic(calibration)
    components = {"host": PlannedComponent(sized_hosts, edge.times(admitted), host.basis)}
    for stage in STAGES:
        sized = _sized(calibration, network=network, stage=stage, found=found, spare=target.spare)
        unit = replace(sized.unit, gpus=resources.gpus.get(stage, 0.0))
        traffic = footprint.stage_traffic(network, stage, per_s, network.callers.speech.mean_s)
        busy = found.prediction.busy[stage]
        components[stage] = PlannedComponent(
            replace(sized, unit=unit), traffic, _stage_basis(calibration, stage, busy), busy
        )
    for name, side in side_stages(calibration, per_s, basis, llm=components["llm"].sized).items():
        sized = replace(side.sized, spare=target.spare)
        components[name] = PlannedComponent(sized, side.traffic, side.basis, source=side.source)
    groups, components = spread_out(components, resources, target.spare, admitted)
    return SolvedPlan(found, components, groups)


def low_load(
    calibration: Calibration,
    network: TurnNetwork,
    target: CapacityTarget,
    *,
    resources: PlanResources,
    peak: SolvedPlan,
) -> LowLoad | None:
    """Return what must run at the lowest load of the target's day, or None without a day.

    A component keeps the spare replicas of the peak, because its limit of replicas on a node is that of the peak.
    """
    if target.low_sessions is None:
        return None
    types = {bool(group.type.gpus): (group.type,) for group in peak.groups}
    same = replace(
        resources,
        cpu_nodes=types.get(False, resources.cpu_nodes),
        gpu_nodes=types.get(True, resources.gpu_nodes),
    )
    quiet_target = replace(target, sessions=target.low_sessions, low_sessions=None)
    quiet = solve(calibration, network, quiet_target, same, full_hosts=False)
    replicas = {
        name: min(component.sized.replicas, quiet.components[name].sized.needed + component.sized.spare)
        for name, component in peak.components.items()
    }
    running = {
        name: replace(component, sized=replace(component.sized, needed=replicas[name]))
        for name, component in peak.components.items()
    }
    packed, _ = spread_out(running, same, 0, quiet.inverted.admitted)
    nodes = tuple(
        min(one.nodes, max(low.nodes, fit.nodes))
        for one, low, fit in zip(peak.groups, quiet.groups, packed, strict=True)
    )
    return LowLoad(target.low_sessions, replicas, nodes)


def spread_out(
    components: Mapping[str, PlannedComponent], resources: PlanResources, spare: int, sessions: int
) -> tuple[tuple[NodeGroup, ...], dict[str, PlannedComponent]]:
    """Return the nodes for components, of which `spare` of each group may die, and the components with spare replicas.

    Components with GPUs are placed on nodes with GPUs, all others on nodes without. Callers enter at the nodes without
    GPUs, one of which is Ray's head.

    Args:
        components: Components with the replicas that the target needs.
        resources: Machine types, of which the cheapest are taken.
        spare: Number of nodes of each group that may be missing.
        sessions: Number of sessions of all hosts, whose audio the HAProxies of the nodes carry.

    Raises:
        ConfigError: A replica does not fit into an empty node; the error names the option of the machine type.
    """
    replicas = sum(component.sized.needed for component in components.values())
    entry = sessions * HAPROXY_CORES * footprint.HEADROOM
    groups, found = [], dict(components)
    for nodes, option, overhead, gpus in (
        (resources.cpu_nodes, "--cpu-node", Overhead(entry, replicas * HEAD_CORES_PER_REPLICA), False),
        (resources.gpu_nodes, "--gpu-node", Overhead(), True),
    ):
        names = [name for name, component in components.items() if bool(component.sized.unit.gpus) is gpus]
        if not names:
            continue
        group, sized = _cheapest(
            nodes, [components[name].sized for name in names], spare, overhead=overhead, option=option
        )
        groups.append(group)
        found |= {name: replace(components[name], sized=one) for name, one in zip(names, sized, strict=True)}
    return tuple(groups), found


def _cheapest(
    nodes: Sequence[NodeType], sized: Sequence[SizedComponent], spare: int, *, overhead: Overhead, option: str
) -> tuple[NodeGroup, list[SizedComponent]]:
    """Return the cheapest group of equal nodes for components, and the components with spare replicas.

    Raises:
        ConfigError: There is no machine type, or a replica fits into none; the error names `option`.
    """
    fitting, fault = [], "no machine type is given"
    for node in nodes:
        try:
            fitting.append(spread(node, sized, spare, overhead))
        except ValueError as error:
            fault = str(error)
    if not fitting:
        raise ConfigError(f"{fault}.", "Choose a larger machine type.", field=option)
    return min(fitting, key=lambda one: (one[0].nodes * (one[0].type.per_hour or 0.0), one[0].nodes))


def _sized(
    calibration: Calibration, network: TurnNetwork, stage: str, found: SolvedReplicas, *, spare: int
) -> SizedComponent:
    needed = found.needed[stage]
    requests = footprint.requests_per_turn(calibration, stage) * found.prediction.turns_per_s.value / needed
    return SizedComponent(footprint.stage_unit(calibration, stage, requests), needed, spare)


def _stage_basis(calibration: Calibration, stage: str, busy: float) -> Basis:
    """Return PREDICTED if a calibration run had as large a share of slots in use, else EXTRAPOLATED.

    `busy` is the share of the slots of `stage` that the plan uses, 0 to 1.
    """
    slots = calibration.slots[stage]
    measured = [level.stages[stage].in_service / slots for level in calibration.levels]
    return basis_at(busy, 0.0, max(measured))
