"""Tests of the sizes of the stages beside the simulated network: the turn detector and the optional stages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.capacity.calibration import Calibration, Level, StageLevel
from loadtest.capacity.side_stages import side_stages
from loadtest.scenario.scenario import CallerBehavior
from rejoinder.core.capacity.sizing import Basis, ReplicaUnit, SizedComponent
from rejoinder.core.errors import ConfigError

LLM = SizedComponent(ReplicaUnit("llm", 4, 1, 1000), needed=7, spare=0)


def calibration(verdicts: float, **settings: object) -> Calibration:
    """Return a calibration of 100 s with 1,000 turns, and this many verdicts of 10 ms of CPU time."""

    def stage(requests: float) -> StageLevel:
        return StageLevel(
            1, requests=requests, served=0, service_mean_s=0, service=(), queue_mean_s=0, in_service=0,
            cores=requests * 0.01 / 100, memory_mb=200,
        )  # fmt: skip

    level = Level(
        sessions=100, turns=1000, for_s=100, p50_ms=500, p95_ms=600, p99_ms=700, audio_s=5, parts={},
        stages={"llm": stage(1000), "turn_detector": stage(verdicts)}, host_cores=1, host_memory_mb=300, in_kbps=560,
        out_kbps=200,
    )  # fmt: skip
    return Calibration((level,), {}, {}, CallerBehavior(), settings=dict(settings))


def test_a_measured_turn_detector_is_sized_by_its_cpu_time() -> None:
    """Half a verdict of 10 ms per turn, at 500 turns a second, are 2.5 cores: five replicas at 0.6 of a core."""
    found = side_stages(calibration(500), 500, Basis.EXTRAPOLATED, LLM)["turn_detector"]
    assert (found.sized.needed, found.basis, found.source) == (5, Basis.EXTRAPOLATED, "")


def test_a_stage_without_requests_gets_a_named_default() -> None:
    """If the calibration had no verdict, one verdict of 44 ms per turn is assumed, and the basis is named.

    500 turns a second, those of 5,000 callers with a turn every 10 s, are 22 cores: 37 replicas at 0.6 of a core.
    """
    found = side_stages(calibration(0), 500, Basis.PREDICTED, LLM)["turn_detector"]
    assert (found.sized.needed, found.basis) == (37, Basis.DEFAULT)
    assert "44 ms per turn (docs/results/density.md)" in found.source


@pytest.mark.parametrize("verdicts", [1, 20, 99])
def test_a_stage_with_few_requests_gets_the_default(verdicts: int) -> None:
    """A rate from fewer than 100 verdicts is not used: the plan has one verdict per turn, and the source says why.

    1 to 20 verdicts in 1,000 turns of 500 a second would need one replica, and 99 in 1,000 also.
    """
    found = side_stages(calibration(verdicts), 500, Basis.PREDICTED, LLM)["turn_detector"]
    assert (found.sized.needed, found.basis) == (37, Basis.DEFAULT)
    assert f"the calibration had {verdicts} in 1000 turns, and 100 give a stable rate" in found.source


def test_few_requests_may_show_that_the_default_is_too_small() -> None:
    """If the few verdicts took 88 ms instead of 44, twice the replicas are planned."""
    measured = calibration(20)
    stage = measured.levels[0].stages["turn_detector"]
    slow = replace(stage, cores=20 * 0.088 / 100)
    level = replace(measured.levels[0], stages=measured.levels[0].stages | {"turn_detector": slow})
    found = side_stages(replace(measured, levels=(level,)), 500, Basis.PREDICTED, LLM)["turn_detector"]
    assert found.sized.needed == 74
    assert "its verdicts took 88 ms" in found.source


def test_a_backup_model_is_as_large_as_the_model_that_it_replaces() -> None:
    """A deployed backup language model gets the size of `llm`, as a default. Otherwise the plan has no such stage."""
    backup = {"engine": "emulated"}
    found = side_stages(calibration(0, llm_backup=backup), 10, Basis.PREDICTED, LLM)
    assert (found["llm_backup"].sized, found["llm_backup"].basis) == (LLM, Basis.DEFAULT)
    assert "llm_backup" not in side_stages(calibration(0), 10, Basis.PREDICTED, LLM)


def test_a_stage_of_unknown_cost_is_refused() -> None:
    """A deployed answer cache that the calibration asked too rarely cannot be sized; the error names it."""
    with pytest.raises(ConfigError, match="answer_cache is deployed, but the calibration did not exercise it"):
        side_stages(calibration(0, answer_cache={"enabled": True}), 10, Basis.PREDICTED, LLM)
