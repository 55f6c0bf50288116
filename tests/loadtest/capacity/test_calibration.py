"""A network fitted to a calibration behaves like the system that was measured."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest.capacity.calibration import (
    Calibration,
    Level,
    StageLevel,
    TimeDistribution,
    histogram_points,
    levels_for,
    load,
    save,
    time_distribution,
)
from loadtest.capacity.network_fit import batching, fit, log_normal, session_range, with_calibrated_hops
from loadtest.capacity.prediction import predict, predicted_knee
from loadtest.capacity.queueing import QueueStage
from loadtest.capacity.service_times import Curved, Quantiles, fixed, sampled
from loadtest.capacity.turn_network import CallerModel, ReplyModel, SimulatedRun, TurnNetwork, simulate
from loadtest.results.result import Latency
from loadtest.scenario.scenario import CallerBehavior
from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.histogram import Histogram
from rejoinder.core.measuring.service_curves import ServiceCurve
from rejoinder.core.settings.settings import parse_settings

BEHAVIOR = CallerBehavior(think_s=0.5, think_sigma=0.3)
ANSWER = ReplyModel(((0.05, 1.5), (0.2, 3.0)), 0.25)
SLOTS = {"stt": 3, "llm": 4, "tts": 8}
TRUE = TurnNetwork(
    stt=QueueStage(1, 3, Curved(ServiceCurve(300, 0.3)), fixed(0.008)),
    llm=QueueStage(2, 4, Curved(ServiceCurve(250, 0.4)), fixed(0.006)),
    tts=QueueStage(1, 8, Curved(ServiceCurve(90, 0.2)), fixed(0.006)),
    callers=CallerModel(log_normal(0.5, 0.3), fixed(1.2)),
    answer=ANSWER,
    silence=fixed(0.09),
    endpoint=fixed(0.14),
    delivery=fixed(0.03),
)


def part(values: list[float]) -> TimeDistribution:
    return TimeDistribution(float(np.mean(values)), sampled(values).points)


def stage_level(run: SimulatedRun, name: str, network: TurnNetwork) -> StageLevel:
    """Return the measurements of one stage that its replicas would report, without error, of a simulated run.

    `name` is "stt", "llm" or "tts", and `network` is the simulated network.
    """
    rest_s = {
        "stt": 0.0,
        "llm": ANSWER.generation_s,
        "tts": float(np.mean([ANSWER.rest_s(audio_s) for _, audio_s in ANSWER.segments])),
    }[name]
    stage: QueueStage = getattr(network, name)
    count = len(run.turns) * (len(ANSWER.segments) if name == "tts" else 1)
    draw = stage.first.drawer(random.Random(5))
    busy_s = run.busy[name] * stage.total_slots * run.for_s
    return StageLevel(
        replicas=stage.replicas,
        requests=count,
        served=count,
        service_mean_s=busy_s / count,
        service=sampled([draw(1) + rest_s for _ in run.turns]).points,
        queue_mean_s=float(np.mean(run.waits_s[name])),
        in_service=busy_s / run.for_s / stage.replicas,
        cores=0.1,
        memory_mb=100,
    )


def level_of(run: SimulatedRun, sessions: int, network: TurnNetwork) -> Level:
    """Return the calibration level that a load generator would measure, without error, in a simulated run.

    `sessions` is the number of sessions of the run, and `network` is the simulated network.
    """
    turns = run.turns
    totals = np.array([turn.total_s for turn in turns]) * 1000
    p50, p95, p99 = (float(np.percentile(totals, p)) for p in (50, 95, 99))
    return Level(
        sessions=sessions,
        turns=len(turns),
        for_s=run.for_s,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        audio_s=ANSWER.audio_s,
        parts={
            "voice_to_voice": part([turn.total_s for turn in turns]),
            "silence": part([turn.silence_s for turn in turns]),
            "endpoint": part([0.14 for _ in turns]),
            "stt": part([max(0.0, turn.transcript_s - 0.14) for turn in turns]),
            "llm_first_token": part([turn.llm_s for turn in turns]),
            "first_segment": part([turn.segment_s for turn in turns]),
            "tts_first_audio": part([turn.tts_s for turn in turns]),
            "delivery": part([turn.delivery_s for turn in turns]),
        },
        stages={name: stage_level(run, name, network) for name in ("stt", "llm", "tts")},
        host_cores=0.2,
        host_memory_mb=300,
        in_kbps=580,
        out_kbps=300,
    )


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    levels = tuple(level_of(simulate(TRUE, n, 600, seed=n), n, TRUE) for n in (6, 12, 18))
    settings = {"hedging": {"enabled": False}}
    return Calibration(levels, engines={"stt": "emulated"}, slots=SLOTS, behavior=BEHAVIOR, settings=settings)


def test_the_fitted_network_behaves_like_the_measured_one(calibration: Calibration) -> None:
    """A network is fitted to measurements of a known simulated network at 6 to 18 sessions.

    At 26 sessions, its p50 and p95 latency are within 6% of the known network's, and its turns per second within 3%.
    """
    fitted, true = predict(fit(calibration, ANSWER), 26), predict(TRUE, 26)
    assert fitted.p50_ms.value == pytest.approx(true.p50_ms.value, rel=0.06)
    assert fitted.p95_ms.value == pytest.approx(true.p95_ms.value, rel=0.06)
    assert fitted.turns_per_s.value == pytest.approx(true.turns_per_s.value, rel=0.03)


@pytest.mark.parametrize(
    "change",
    [
        {"stt": QueueStage(3, 1, Curved(ServiceCurve(300, 0.3)))},
        {"stt": QueueStage(1, 2, Curved(ServiceCurve(500, 0.6)))},
        {"tts": QueueStage(1, 2, Curved(ServiceCurve(150)))},
    ],
    ids=["replicas", "distribution", "another bottleneck"],
)
def test_the_knee_of_another_configuration(calibration: Calibration, change: dict[str, QueueStage]) -> None:
    """If the same stage is changed in the fitted network and in the known one, their knees differ by at most 6%.

    A difference of one session is accepted, too. The known network is the one that was measured for the fit.
    The knee is the largest number of sessions with a p95 latency within 1800 ms.
    """
    fitted = predicted_knee(with_calibrated_hops(fit(calibration, ANSWER), change), 1800, 80)
    true = predicted_knee(with_calibrated_hops(TRUE, change), 1800, 80)
    assert fitted == pytest.approx(true, rel=0.06, abs=1)


def test_replies_can_be_taken_from_the_measurement(calibration: Calibration) -> None:
    """If no model of the replies is given, they are taken from the calibration.

    At 22 sessions, the p50 latency of the fitted network is within 10% of that of the known network that was measured,
    and its turns per second are within 3%.
    """
    fitted, true = predict(fit(calibration), 22), predict(TRUE, 22)
    assert fitted.p50_ms.value == pytest.approx(true.p50_ms.value, rel=0.1)
    assert fitted.turns_per_s.value == pytest.approx(true.turns_per_s.value, rel=0.03)


def test_batching_is_used_only_beyond_noise(calibration: Calibration) -> None:
    """If service times do not grow with the number of concurrent requests, no slow-down by batching is assumed.

    If they grow by 20% per further request, the factors for 1, 2 and 3 concurrent requests are 1, 1.2 and 1.4.
    """
    plain = batching(calibration, "stt")
    assert plain is None or not plain.believed
    levels = tuple(
        replace(
            level,
            stages=level.stages
            | {"stt": replace(level.stages["stt"], service_mean_s=0.3 * (1 + 0.2 * (busy - 1)), in_service=busy)},
        )
        for level, busy in zip(calibration.levels, (1.0, 1.6, 2.5), strict=True)
    )
    grown = batching(replace(calibration, levels=levels), "stt")
    assert grown is not None
    assert grown.believed
    assert grown.factors(3) == pytest.approx((1, 1.2, 1.4), rel=0.01)


def test_a_calibration_is_a_file(calibration: Calibration, tmp_path: Path) -> None:
    """A saved calibration loads as an equal one. A damaged or missing file raises ConfigError."""
    save(calibration, tmp_path / "c.json")
    assert load(tmp_path / "c.json") == calibration
    (tmp_path / "c.json").write_text('{"levels": []}')
    with pytest.raises(ConfigError, match="engines"):
        load(tmp_path / "c.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.json")


def test_the_committed_calibration_is_valid() -> None:
    """The calibration in docs/ loads, and its settings are valid for this version."""
    [path] = (Path(__file__).parents[3] / "docs").rglob("calibration.json")
    assert parse_settings(load(path).settings).stt.engine == "emulated"


def test_levels_stand_at_20_40_and_60_percent() -> None:
    """For a knee (largest load within the limit) of 50 sessions, the calibration measures 10, 20 and 30 sessions.

    A knee that is too small for three different levels raises ConfigError.
    """
    assert levels_for(50) == (10, 20, 30)
    with pytest.raises(ConfigError, match="--knee"):
        levels_for(2)


def test_the_range_is_that_of_the_levels(calibration: Calibration) -> None:
    """`session_range` returns the smallest and the largest number of sessions that the calibration measured."""
    assert session_range(calibration.levels) == (6, 18)


def test_printed_percentiles_are_a_distribution() -> None:
    """If a result lists percentiles but no histogram, its latency distribution follows them and has the exact mean."""
    distribution = time_distribution(
        Latency(
            100,
            mean_ms=210,
            p50_ms=200,
            p90_ms=250,
            p95_ms=300,
            p99_ms=400,
            max_ms=500,
            curve=((1, 100), (50, 200), (95, 300), (100, 500)),
        )
    )
    assert distribution.mean_s == 0.21
    assert distribution.times.at(0.5) == pytest.approx(0.2)
    assert distribution.times.at(1) == 0.5


def test_a_histograms_mean_is_exact() -> None:
    """A distribution from a histogram has exactly the mean that follows from the histogram's sum and count.

    Its quantiles, which are computed from the buckets, rise.
    """
    points = histogram_points(Histogram((0.1, 0.2, float("inf")), (0, 8, 2), 2.4))
    times = Quantiles(points)
    assert times.mean_s == pytest.approx(0.24)
    assert times.at(0.4) < times.at(0.9)


@pytest.mark.parametrize(("median_s", "sigma"), [(2.0, 0.5), (0.3, 0.0), (0.0, 0.5)])
def test_thinking_has_its_distributions_mean(median_s: float, sigma: float) -> None:
    """The quantiles that represent log-normal think times have the exact mean, and the median within 2%."""
    times = log_normal(median_s, sigma)
    assert times.mean_s == pytest.approx(median_s * np.exp(sigma**2 / 2))
    assert isinstance(times, Quantiles)
    assert times.at(0.5) == pytest.approx(median_s, rel=0.02)
