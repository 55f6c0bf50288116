"""The whole plan as one value: what was calibrated against what is predicted, and what the target needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from loadtest.capacity import footprint
from loadtest.capacity.calibration import Calibration
from loadtest.capacity.inversion import CapacityTarget, SolvedReplicas, invert
from loadtest.capacity.network_fit import STAGES, span
from loadtest.capacity.prediction import predict, predicted_knee, refused
from loadtest.capacity.turn_network import TurnNetwork
from rejoinder.core.capacity.sizing import Basis, SizedComponent, Traffic, basis_at, hosts

DETECTOR = "turn_detector"
DETECTOR_CORES = 0.6
"""Of one core that a turn detector's replica may use: above it verdicts queue behind one another."""

KNEE_FOR_S = 120.0
SESSION_S = 180.0
"""A call's mean length, where blocking is asked for over time; the share refused does not depend on it."""


@dataclass(frozen=True, slots=True)
class LevelCheck:
    """A calibrated level: measured and predicted, milliseconds and turns a second."""

    sessions: int
    measured: dict[str, float]
    predicted: dict[str, float]

    @property
    def errors(self) -> dict[str, float]:
        """Relative; positive if more was predicted than measured."""
        return {name: self.predicted[name] / value - 1 for name, value in self.measured.items() if value}


@dataclass(frozen=True, slots=True)
class Knee:
    """Simulated knee of the calibrated deployment at the target's percentile.

    `bound` says what ends it: a stage's slots, or the core of its hosts, which the simulation does not know.
    """

    sessions: int
    bound: str
    basis: Basis
    turns_per_s: float


@dataclass(frozen=True, slots=True)
class PlannedComponent:
    """A component of the plan; `busy`: share of its slots in use with the spare replicas away."""

    sized: SizedComponent
    traffic: Traffic
    basis: Basis
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """`refused`: predicted share of calls that find no place with all hosts there, and with the spare ones away."""

    target: CapacityTarget
    checks: tuple[LevelCheck, ...]
    knee: Knee | None
    inverted: SolvedReplicas
    components: Mapping[str, PlannedComponent]
    edge: Traffic
    refused: tuple[float, float]
    basis: Basis
    per_host: int

    @property
    def turns_per_s(self) -> float:
        return self.inverted.prediction.turns_per_s.value


@dataclass(frozen=True, slots=True)
class PlanResources:
    """What the reader decides: GPUs a replica by stage, and the most sessions a host may hold."""

    gpus: Mapping[str, float]
    most_per_host: int | None = None


def checks(calibration: Calibration, network: TurnNetwork) -> tuple[LevelCheck, ...]:
    """Every calibrated level held against the network that was fitted to them."""
    rows = []
    for level in sorted(calibration.levels, key=lambda level: level.sessions):
        found = predict(network, level.sessions)
        measured = {
            "p50_ms": level.p50_ms,
            "p95_ms": level.p95_ms,
            "p99_ms": level.p99_ms,
            "turns_per_s": level.turns_per_s,
        }
        predicted = {name: getattr(found, name).value for name in measured}
        rows.append(LevelCheck(level.sessions, measured, predicted))
    return tuple(rows)


def knee(calibration: Calibration, network: TurnNetwork, limit_ms: float) -> Knee:
    """Where the calibrated deployment ends."""
    by_slots = predicted_knee(network, limit_ms, KNEE_FOR_S, most=20 * calibration.most.sessions)
    by_core = calibration.most.hosts * footprint.host(calibration).sessions
    found = min(by_slots, by_core)
    there = predict(network, max(1, found), KNEE_FOR_S)
    return Knee(
        sessions=found,
        bound="the hosts' core" if by_core < by_slots else f"the slots of {there.bottleneck}",
        basis=basis_at(found, *span(calibration.levels)),
        turns_per_s=there.turns_per_s.value,
    )


def plan(calibration: Calibration, network: TurnNetwork, target: CapacityTarget, resources: PlanResources) -> Plan:
    """Raises ConfigError if the target cannot be met."""
    host = footprint.host(calibration, resources.most_per_host)
    sized_hosts, admitted = hosts(target.sessions, target.refused, host.unit, target.spare)
    found = invert(network, target, admitted)
    per_s = found.prediction.turns_per_s.value
    session = footprint.edge(calibration.most)
    basis = basis_at(admitted, *span(calibration.levels))
    components = {"host": PlannedComponent(sized_hosts, session.times(admitted), host.basis)}
    if DETECTOR in calibration.least.stages:
        components[DETECTOR] = PlannedComponent(
            _detector(calibration, per_s, target.spare), _verdicts(calibration, per_s), basis
        )
    speech_s = network.callers.speech.mean_s
    for stage in STAGES:
        sized = _sized(calibration, network=network, stage=stage, found=found, spare=target.spare)
        unit = replace(sized.unit, gpus=resources.gpus.get(stage, 0.0))
        traffic = footprint.inside(network, stage, per_s, speech_s)
        busy = found.prediction.busy[stage]
        components[stage] = PlannedComponent(
            replace(sized, unit=unit), traffic, _stage_basis(calibration, stage, busy), busy
        )
    places = [sized_hosts.replicas * host.sessions, admitted]
    blocked = tuple(refused(target.sessions / SESSION_S, SESSION_S, seats) for seats in places)
    return Plan(
        target,
        checks=checks(calibration, network),
        knee=knee(calibration, network, target.p95_ms),
        inverted=found,
        components=components,
        edge=session.times(admitted),
        refused=(blocked[0], blocked[1]),
        basis=basis,
        per_host=host.sessions,
    )


def _sized(
    calibration: Calibration, network: TurnNetwork, stage: str, found: SolvedReplicas, *, spare: int
) -> SizedComponent:
    needed = found.needed[stage]
    requests = footprint.requests_per_turn(calibration, stage) * found.prediction.turns_per_s.value / needed
    return SizedComponent(footprint.stage_unit(calibration, stage, requests), needed, spare)


def _detector(calibration: Calibration, turns_per_s: float, spare: int) -> SizedComponent:
    """By its CPU alone: a verdict has its own time limit, and silence decides when it is late."""
    requests = footprint.requests_per_turn(calibration, DETECTOR) * turns_per_s
    cores = requests * footprint.cpu_per_request_s(calibration, DETECTOR)
    needed = max(1, math.ceil(cores / DETECTOR_CORES))
    return SizedComponent(footprint.stage_unit(calibration, DETECTOR, requests / needed), needed, spare)


def _verdicts(calibration: Calibration, turns_per_s: float) -> Traffic:
    return footprint.verdicts(footprint.requests_per_turn(calibration, DETECTOR) * turns_per_s)


def _stage_basis(calibration: Calibration, stage: str, busy: float) -> Basis:
    """A stage is extrapolated if its slots will be busier than in any calibrated level."""
    slots = calibration.slots[stage]
    measured = [level.stages[stage].in_service / slots for level in calibration.levels]
    return basis_at(busy, 0.0, max(measured))
