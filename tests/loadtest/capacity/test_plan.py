"""Tests of capacity plans. A plan has confidence intervals only if the calibration's range covers it.

An interval includes the model's error, that is, the difference between model and calibration.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.capacity.calibration import Calibration, Level, StageLevel
from loadtest.capacity.inversion import SolvedReplicas
from loadtest.capacity.network_fit import STAGES
from loadtest.capacity.plan import (
    PERCENTILES,
    LevelCheck,
    PlannedComponent,
    PlanResources,
    intervals_ms,
    spread_out,
    target_basis,
)
from loadtest.capacity.prediction import Estimate, Prediction
from loadtest.scenario.scenario import CallerBehavior
from rejoinder.core.capacity.sizing import Basis, NodeType, ReplicaUnit, SizedComponent, Traffic

PREDICTION = Prediction(
    sessions=20,
    p50_ms=Estimate(500, 0.0),
    p95_ms=Estimate(1000, 30.0),
    p99_ms=Estimate(1200, 5.0),
    turns_per_s=Estimate(2.0, 0.1),
    busy=dict.fromkeys(STAGES, 0.5),
    wait_p95_ms=dict.fromkeys(STAGES, 10.0),
    hedged=0.0,
)
SOLVED = SolvedReplicas(20, needed=dict.fromkeys(STAGES, 2), prediction=PREDICTION, alone=PREDICTION, cycle_s=10.0)


def level(sessions: int) -> Level:
    stage = StageLevel(
        2,
        requests=100,
        served=100,
        service_mean_s=0.2,
        service=((0.0, 0.1), (1.0, 0.3)),
        queue_mean_s=0.0,
        in_service=0.5,
        cores=0.1,
        memory_mb=100,
    )
    return Level(
        sessions=sessions, turns=10 * sessions, for_s=100, p50_ms=500, p95_ms=900, p99_ms=1100, audio_s=5.0, parts={},
        stages=dict.fromkeys(STAGES, stage), host_cores=0.1, host_memory_mb=100, in_kbps=560, out_kbps=200,
    )  # fmt: skip


CALIBRATION = Calibration((level(10), level(20), level(30)), {}, dict.fromkeys(STAGES, 4), CallerBehavior())


def check(sessions: int, *, p95_error: float = 0.0) -> LevelCheck:
    measured = {"p50_ms": 500.0, "p95_ms": 1000.0, "p99_ms": 1200.0, "turns_per_s": sessions / 10}
    return LevelCheck(sessions, measured, measured | {"p95_ms": 1000 * (1 + p95_error)})


CHECKS = [check(10, p95_error=0.01), check(20, p95_error=-0.04), check(30)]


def test_a_plan_within_the_calibration_is_predicted() -> None:
    """A plan is PREDICTED if its sessions, turns per second and replicas are within the calibrated range."""
    assert target_basis(CALIBRATION, CHECKS, SOLVED) is Basis.PREDICTED


@pytest.mark.parametrize(
    "solved",
    [
        replace(SOLVED, admitted=31),
        replace(SOLVED, admitted=9),
        replace(SOLVED, prediction=replace(PREDICTION, turns_per_s=Estimate(3.1, 0.1))),
        replace(SOLVED, needed=SOLVED.needed | {"tts": 3}),
        replace(SOLVED, needed=SOLVED.needed | {"llm": 1}),
    ],
    ids=["more sessions", "fewer sessions", "higher rate", "more replicas", "fewer replicas"],
)
def test_a_plan_outside_the_calibration_has_no_interval(solved: SolvedReplicas) -> None:
    """A plan is EXTRAPOLATED if its sessions, turns per second or replicas are outside the calibrated range.

    `intervals_ms` then returns None.
    """
    basis = target_basis(CALIBRATION, CHECKS, solved)
    assert basis is Basis.EXTRAPOLATED
    assert intervals_ms(CHECKS, solved.prediction, basis) is None


def test_an_interval_contains_the_models_error() -> None:
    """The half width of the interval of p95 latency is 50 ms: the square root of 40² + 30².

    40 ms is the model's largest error at a calibrated level (4% of 1,000 ms), and 30 ms is the sampling error.
    """
    widths = intervals_ms(CHECKS, PREDICTION, Basis.PREDICTED)
    assert widths is not None
    assert set(widths) == set(PERCENTILES)
    assert widths["p95_ms"] == pytest.approx(50)
    assert widths["p99_ms"] == pytest.approx(5)


def nodes(sessions: int, replicas: int, spare: int = 0, cores: float = 1.0) -> int:
    """Return the number of nodes of 4 cores (of which 3.6 are used) for hosts of `cores` cores."""
    components = {
        "host": PlannedComponent(
            SizedComponent(ReplicaUnit("host", 100, cores, 100), replicas, 0), Traffic(0, 0, 0, 0), Basis.PREDICTED
        )
    }
    machine = NodeType("4:16", 4, 16_000)
    groups, _ = spread_out(components, PlanResources({}, (machine,), (machine,)), spare, sessions)
    return groups[0].nodes


def test_the_entry_takes_cores_of_the_nodes() -> None:
    """The HAProxies of 2,000 sessions take 2000 * 0.0013 * 1.3 = 3.4 cores, so six hosts need three nodes, not two."""
    assert (nodes(0, 6), nodes(2000, 6)) == (2, 3)


def test_the_head_takes_cores_of_one_node() -> None:
    """Ray's own processes take 0.027 cores per replica: 72 hosts of 0.1 cores fill two nodes, and need a third."""
    assert nodes(0, 35, cores=0.1) == 2
    assert nodes(0, 72, cores=0.1) == 3


def test_the_entry_fits_while_nodes_are_missing() -> None:
    """While one of three nodes is missing, each of the others has 1.7 cores of the entry, and room for one host.

    So three hosts need a fourth node. With the entry on all three nodes, each would have room for two.
    """
    assert nodes(2000, 3, spare=1) == 4
