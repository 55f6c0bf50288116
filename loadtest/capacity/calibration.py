"""Calibration document: load runs of a real deployment at a few loads, reduced to the figures that a plan needs.

Each run becomes a `Level`. It keeps the client's measurements (percentiles, throughput, the parts of a turn) and the
replicas' measurements (service times, waits, CPU, memory). The runs are at 20, 40 and 60% of the knee. At these loads
waiting at the bottleneck does not dominate, and they differ enough to show growth with load.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram
from pydantic import TypeAdapter, ValidationError

from loadtest.capacity.service_times import Quantiles, bucketed
from loadtest.generator.measuring import MeasuredWindow
from loadtest.generator.stage_metrics import StageCounts
from loadtest.results.result import VOICE_TO_VOICE, Latency, RunResult
from loadtest.scenario.scenario import CallerBehavior
from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.histogram import Histogram
from rejoinder.core.measuring.waterfall import Stage

SHARES = (0.2, 0.4, 0.6)
"""Loads of the calibration runs, as shares of the knee (the largest number of sessions within the latency limit)."""

LEAST_TURNS = 30
"""Minimum number of answered turns in a level. Fewer turns do not give a usable 95th percentile."""

FORMAT = 1

_SHARES_OF_A_CURVE = (0.0, 0.01, 0.05, *(step / 20 for step in range(2, 19)), 0.95, 0.975, 0.99, 0.995, 1.0)


@dataclass(frozen=True, slots=True)
class TimeDistribution:
    """Distribution of the length of one part of a turn: mean in seconds, and quantiles as (share, seconds) pairs."""

    mean_s: float
    points: tuple[tuple[float, float], ...]

    @property
    def times(self) -> Quantiles:
        """The distribution as `Quantiles`, from which a simulation draws times in seconds."""
        return Quantiles(self.points)


@dataclass(frozen=True, slots=True)
class StageLevel:
    """Measurements of one stage in one run, by its replicas.

    Attributes:
        replicas: Number of replicas.
        requests: Number of requests.
        served: Number of requests with a measured service time. 0 for a stage that measures no service times (the turn
            detector).
        service_mean_s: Mean service time in seconds.
        service: Quantiles of the service time as (share, seconds) pairs.
        queue_mean_s: Mean wait for a slot in seconds.
        in_service: Mean number of occupied slots per replica.
        cores: Mean number of CPU cores used per replica.
        memory_mb: Memory of the largest replica in MB.
    """

    replicas: int
    requests: float
    served: int
    service_mean_s: float
    service: tuple[tuple[float, float], ...]
    queue_mean_s: float
    in_service: float
    cores: float
    memory_mb: float


@dataclass(frozen=True, slots=True)
class Level:
    """Measurements of one run at a constant number of sessions.

    Attributes:
        sessions: Number of sessions.
        turns: Number of answered turns.
        for_s: Length of the run in seconds.
        p50_ms: Median voice-to-voice latency in milliseconds.
        p95_ms: 95th percentile of the voice-to-voice latency in milliseconds.
        p99_ms: 99th percentile of the voice-to-voice latency in milliseconds.
        audio_s: Mean seconds of audio per answer.
        parts: Distributions of the voice-to-voice latency and of its stages, by name.
        stages: The replicas' measurements, by stage.
        host_cores: Mean number of CPU cores used by all hosts together.
        host_memory_mb: Memory of the largest host in MB.
        in_kbps: WebSocket payload from one caller in kilobits per second, without headers.
        out_kbps: WebSocket payload to one caller in kilobits per second, without headers.
        frames_per_s: Audio messages per second from one caller.
        hedged: Number of turns whose LLM request was hedged.
        hosts: Number of hosts.
    """

    sessions: int
    turns: int
    for_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    audio_s: float
    parts: dict[str, TimeDistribution]
    stages: dict[str, StageLevel]
    host_cores: float
    host_memory_mb: float
    in_kbps: float
    out_kbps: float
    frames_per_s: float = 0.0
    hedged: int = 0
    hosts: int = 1

    @property
    def turns_per_s(self) -> float:
        """Throughput of all sessions in the run, in answered turns per second."""
        return self.turns / self.for_s


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measurements of one deployment at several numbers of sessions.

    Attributes:
        levels: Measurements of the runs, each at one number of sessions.
        engines: Engine of each stage, in words.
        slots: Number of requests that one replica serves at the same time, by stage.
        behavior: Behaviour of the simulated callers.
        settings: Settings of the deployment: the mapping `args` in ray_config.yaml.
        machine: Description of the machine.
        version: Number of the document's format. `load` accepts only `FORMAT`.
    """

    levels: tuple[Level, ...]
    engines: dict[str, str]
    slots: dict[str, int]
    behavior: CallerBehavior
    settings: dict[str, Any] = field(default_factory=dict)
    machine: str = ""
    version: int = FORMAT

    @property
    def least(self) -> Level:
        """Measurements of the run with the fewest sessions."""
        return min(self.levels, key=lambda level: level.sessions)

    @property
    def most(self) -> Level:
        """Measurements of the run with the most sessions."""
        return max(self.levels, key=lambda level: level.sessions)

    @property
    def emulated(self) -> bool:
        """True if any engine was emulated. The calibration then measures the system around that engine, not a model."""
        return any(engine.startswith("emulated") for engine in self.engines.values())


_ADAPTER = TypeAdapter(Calibration)


def save(calibration: Calibration, path: Path) -> None:
    """Write a calibration to a file as JSON."""
    path.write_text(json.dumps(asdict(calibration), sort_keys=True) + "\n", encoding="utf-8")


def load(path: Path) -> Calibration:
    """Read a calibration from a file.

    Raises:
        ConfigError: The file cannot be read, is not a calibration, or has another format version.
    """
    remedy = "Create a calibration with `rejoinder plan --url URL --save FILE`."
    try:
        calibration = _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the file cannot be read ({error.strerror}).", remedy, field=str(path)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the file is not a calibration: {where}: {first['msg']}.", remedy, field=str(path)) from None
    if calibration.version != FORMAT or not calibration.levels:
        raise ConfigError(
            f"the calibration has format {calibration.version} (expected {FORMAT}) "
            f"and {len(calibration.levels)} levels.",
            remedy,
            str(path),
        )
    return calibration


def levels_for(knee: int) -> tuple[int, ...]:
    """Return the numbers of sessions at which to calibrate, in rising order: the shares `SHARES` of `knee`.

    Args:
        knee: Largest number of sessions with which the deployment is within its latency limit.

    Raises:
        ConfigError: `knee` is too small for three different numbers.
    """
    sessions = tuple(max(1, round(share * knee)) for share in SHARES)
    if len(set(sessions)) < len(SHARES):
        raise ConfigError(
            f"a knee of {knee} sessions does not give three different levels.", "Use 5 or more.", field="--knee"
        )
    return sessions


def level(result: RunResult, window: MeasuredWindow) -> Level:
    """Reduce a calibration run to the figures that a plan needs.

    Args:
        result: The client's result of the run.
        window: The replicas' metrics of the same run.

    Raises:
        ConfigError: Fewer than `LEAST_TURNS` turns were answered.
    """
    whole = result.latencies.get(VOICE_TO_VOICE)
    if whole is None or result.counts.answered < LEAST_TURNS:
        raise ConfigError(
            f"only {result.counts.answered} turns were answered, {LEAST_TURNS} are needed.",
            "Run longer or with more sessions.",
            field="--for",
        )
    sessions, host = int(str(result.scenario["sessions"])), window.stages.get("host")
    return Level(
        sessions=sessions,
        turns=result.counts.answered,
        for_s=result.held_s,
        p50_ms=whole.p50_ms,
        p95_ms=whole.p95_ms,
        p99_ms=whole.p99_ms,
        audio_s=result.counts.audio_s / result.counts.answered,
        parts={
            name: time_distribution(latency)
            for name, latency in result.latencies.items()
            if name in _PARTS and latency.count
        },
        stages={name: _stage(counts, window.for_s) for name, counts in window.stages.items() if name != "host"},
        host_cores=host.cpu_s / window.for_s if host else 0.0,
        host_memory_mb=host.memory_mb if host else 0.0,
        in_kbps=window.bytes_sent * 8 / 1000 / window.for_s / sessions,
        out_kbps=window.bytes_received * 8 / 1000 / window.for_s / sessions,
        frames_per_s=window.frames_sent / window.for_s / sessions,
        hedged=result.counts.hedged,
        hosts=host.replicas if host else 1,
    )


_PARTS = {VOICE_TO_VOICE, *(stage.value for stage in Stage), "unattributed"}


def time_distribution(latency: Latency) -> TimeDistribution:
    """Return the distribution of a latency, from its histogram if there is one, else from its percentile `curve`."""
    if latency.histogram:
        histogram = HdrHistogram.decode(latency.histogram)
        values = [histogram.get_value_at_percentile(100 * share) / 1e6 for share in _SHARES_OF_A_CURVE]
        return TimeDistribution(latency.mean_ms / 1000, _rising(zip(_SHARES_OF_A_CURVE, values, strict=True)))
    least, most = latency.curve[0][1] / 1000, latency.curve[-1][1] / 1000
    inner = [(percentile / 100, ms / 1000) for percentile, ms in latency.curve if 0 < percentile < 100]
    return TimeDistribution(latency.mean_ms / 1000, _rising([(0.0, least), *inner, (1.0, most)]))


def histogram_points(histogram: Histogram) -> tuple[tuple[float, float], ...]:
    """Return the quantiles of a histogram as (share, seconds) pairs.

    The buckets give the shape of the distribution. It is scaled so that its mean is the exact mean of the histogram.
    """
    finite = [bound if bound != float("inf") else 2 * histogram.bounds_s[-2] for bound in histogram.bounds_s]
    spread = bucketed(finite, histogram.counts)
    scale = histogram.mean_s / spread.mean_s if spread.mean_s else 1.0
    return tuple((share, seconds * scale) for share, seconds in spread.points)


def _rising(points: Any) -> tuple[tuple[float, float], ...]:
    kept: list[tuple[float, float]] = []
    for share, seconds in points:
        value = max(0.0, seconds, kept[-1][1] if kept else 0.0)
        kept.append((float(share), float(value)))
    return tuple(kept)


def _stage(counts: StageCounts, for_s: float) -> StageLevel:
    has_times = counts.service.count > 0
    return StageLevel(
        replicas=counts.replicas,
        requests=counts.requests,
        served=counts.service.count,
        service_mean_s=counts.service.mean_s if has_times else 0.0,
        service=histogram_points(counts.service) if has_times else (),
        queue_mean_s=counts.queue.mean_s if counts.queue.count else 0.0,
        in_service=counts.service.sum_s / for_s / counts.replicas,
        cores=counts.cpu_s / for_s / counts.replicas,
        memory_mb=counts.memory_mb,
    )
