"""Sizes of the deployed stages that the simulated network has no queues for, by the CPU time of their requests.

These are the turn detector, voice activity detection as a deployment, the answer cache and the backup language model.
Their latency is not a part of the model: silence ends a turn if a verdict is late, and a late lookup is not used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from loadtest.capacity import footprint
from loadtest.capacity.calibration import Calibration
from rejoinder.core.capacity.sizing import Basis, ReplicaUnit, SizedComponent, Traffic
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings, parse_settings

MOST_OF_A_CORE = 0.6
"""Maximum share of one core that a replica may use. Above this share, its requests queue."""

DETECTOR = "turn_detector"

DETECTOR_S = 0.044
"""CPU time of one verdict of Smart Turn in seconds (docs/results/density.md)."""
DETECTOR_MB = 240.0
"""Memory of one replica of the turn detector in MB, as in the example of docs/results/capacity.md."""
DETECTOR_SOURCE = "default: one verdict of 44 ms per turn (docs/results/density.md)"

LEAST_REQUESTS = 100
"""Number of requests from which a stage's rate is known: the standard error of a count of 100 is 10%."""


@dataclass(frozen=True, slots=True)
class SideStage:
    """A stage beside the simulated network.

    Attributes:
        sized: Number of replicas without spares, with the resources of each.
        traffic: Network traffic between the hosts and all its replicas.
        basis: EXTRAPOLATED or PREDICTED if it was measured, DEFAULT if the calibration had too few requests.
        source: Where a default comes from. Empty if the stage was measured.
    """

    sized: SizedComponent
    traffic: Traffic
    basis: Basis
    source: str = ""


def deployed(settings: Settings) -> tuple[str, ...]:
    """Return the names of the deployments that these settings have beside the host, stt, llm and tts."""
    optional = {
        "vad": settings.vad.placement == "deployment",
        "answer_cache": settings.answer_cache.enabled,
        "llm_backup": settings.llm_backup is not None,
    }
    return (DETECTOR, *(name for name, present in optional.items() if present))


def side_stages(
    calibration: Calibration, turns_per_s: float, basis: Basis, llm: SizedComponent
) -> dict[str, SideStage]:
    """Return the size of each stage beside the simulated network, by name.

    Args:
        calibration: Measurements of the calibration runs.
        turns_per_s: Planned turns per second of all sessions together.
        basis: Basis of figures that were measured.
        llm: The planned language model, whose size the backup gets.

    Raises:
        ConfigError: A stage was deployed, but the calibration had too few requests to it, and it has no default.
    """
    return {
        name: _side_stage(calibration, name, turns_per_s, basis=basis, llm=llm)
        for name in deployed(parse_settings(calibration.settings))
    }


def _side_stage(
    calibration: Calibration, name: str, turns_per_s: float, *, basis: Basis, llm: SizedComponent
) -> SideStage:
    if name == "llm_backup":
        source = "default: as many replicas as llm, which it can replace"
        return SideStage(llm, Traffic(0.0, 0.0, 0.0, 0.0), Basis.DEFAULT, source)
    requests = sum(level.stages[name].requests for level in calibration.levels if name in level.stages)
    if requests >= LEAST_REQUESTS:
        return _measured(calibration, name, turns_per_s, basis)
    if name != DETECTOR:
        raise ConfigError(
            f"{name} is deployed, but the calibration did not exercise it enough: it had {requests:.0f} requests, and "
            f"{LEAST_REQUESTS} give a stable rate. So its size is unknown.",
            "Calibrate longer and with callers that use it, or turn it off.",
            field="--calibration",
        )
    return _detector(calibration, turns_per_s, requests)


def _measured(calibration: Calibration, name: str, turns_per_s: float, basis: Basis) -> SideStage:
    per_s = footprint.requests_per_turn(calibration, name) * turns_per_s
    needed = replicas_for(per_s * footprint.cpu_per_request_s(calibration, name))
    unit = footprint.stage_unit(calibration, name, per_s / needed)
    return SideStage(SizedComponent(unit, needed, 0), footprint.detector_traffic(per_s), basis)


def _detector(calibration: Calibration, turns_per_s: float, verdicts: float) -> SideStage:
    """Return the turn detector with one verdict per turn, because the calibration had too few for a rate.

    A verdict takes `DETECTOR_S`, or what those of the calibration took if that is more.
    """
    verdict_s = max(DETECTOR_S, footprint.cpu_per_request_s(calibration, DETECTOR))
    needed = replicas_for(turns_per_s * verdict_s)
    cores = max(footprint.LEAST_CORES, turns_per_s / needed * verdict_s * footprint.HEADROOM)
    unit = ReplicaUnit(DETECTOR, 1, cores, DETECTOR_MB * footprint.HEADROOM)
    turns = sum(level.turns for level in calibration.levels)
    seen = f"the calibration had {verdicts:.0f} in {turns} turns, and {LEAST_REQUESTS} give a stable rate"
    slower = f"; its verdicts took {verdict_s * 1000:.0f} ms" if verdict_s > DETECTOR_S else ""
    return SideStage(
        SizedComponent(unit, needed, 0),
        footprint.detector_traffic(turns_per_s),
        Basis.DEFAULT,
        f"{DETECTOR_SOURCE}; {seen}{slower}",
    )


def replicas_for(cores: float) -> int:
    """Return the number of replicas that use `cores` cores together, each at most `MOST_OF_A_CORE` of one."""
    return max(1, math.ceil(cores / MOST_OF_A_CORE))
