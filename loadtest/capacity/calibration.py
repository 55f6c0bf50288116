"""What a plan is computed from: runs of a real deployment at a few loads, boiled down to a document.

A level is one run. Of it are kept what the client heard (percentiles, throughput, the shares of a turn) and what the
replicas counted (service times, waits, CPU, memory). Levels stand at 20, 40 and 60% of the knee: low enough that the
system is not the bottleneck's hostage, far enough apart to see what grows with load.
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
from loadtest.generator.stage_metrics import Histogram, StageCounts
from loadtest.results.result import VOICE_TO_VOICE, Latency, RunResult
from loadtest.scenario.scenario import CallerBehavior
from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.waterfall import Stage

SHARES = (0.2, 0.4, 0.6)
"""Of the knee, where calibration runs."""

LEAST_TURNS = 30
"""Fewer turns than this tell nothing of a 95th percentile."""

FORMAT = 1

_SHARES_OF_A_CURVE = (0.0, 0.01, 0.05, *(step / 20 for step in range(2, 19)), 0.95, 0.975, 0.99, 0.995, 1.0)


@dataclass(frozen=True, slots=True)
class TimeDistribution:
    """A distribution of one part of a turn: its mean and its quantiles (share, seconds)."""

    mean_s: float
    points: tuple[tuple[float, float], ...]

    @property
    def times(self) -> Quantiles:
        return Quantiles(self.points)


@dataclass(frozen=True, slots=True)
class StageLevel:
    """One stage in one run: services and waits as the replicas counted them.

    `served` requests of all have a known service; 0 for a stage that counts none (the turn detector). `in_service` is
    the mean number of busy slots a replica, `cores` what one replica used, `memory_mb` the largest replica's.
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
    """One run at a constant number of sessions; rates and bytes are a session's, WebSocket payload without headers."""

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
        return self.turns / self.for_s


@dataclass(frozen=True, slots=True)
class Calibration:
    """All levels of one deployment. `slots`: of one replica, by stage. `settings` are the application's `args`."""

    levels: tuple[Level, ...]
    engines: dict[str, str]
    slots: dict[str, int]
    behavior: CallerBehavior
    settings: dict[str, Any] = field(default_factory=dict)
    machine: str = ""
    version: int = FORMAT

    @property
    def least(self) -> Level:
        return min(self.levels, key=lambda level: level.sessions)

    @property
    def most(self) -> Level:
        return max(self.levels, key=lambda level: level.sessions)

    @property
    def emulated(self) -> bool:
        """Whether some engine was emulated, so that the system was measured and not a model."""
        return any(engine.startswith("emulated") for engine in self.engines.values())


_ADAPTER = TypeAdapter(Calibration)


def save(calibration: Calibration, path: Path) -> None:
    path.write_text(json.dumps(asdict(calibration), sort_keys=True) + "\n", encoding="utf-8")


def load(path: Path) -> Calibration:
    """Raises ConfigError if the file is no calibration."""
    remedy = "Make one with `rejoinder plan --url URL --save FILE`."
    try:
        found = _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror}).", remedy, field=str(path)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"is no calibration: {where}: {first['msg']}.", remedy, field=str(path)) from None
    if found.version != FORMAT or not found.levels:
        raise ConfigError(
            f"is a calibration of format {found.version} with {len(found.levels)} levels.", remedy, str(path)
        )
    return found


def levels_for(knee: int) -> tuple[int, ...]:
    """The numbers of sessions to calibrate at; raises ConfigError if the knee is too small to have three of them."""
    sessions = tuple(max(1, round(share * knee)) for share in SHARES)
    if len(set(sessions)) < len(SHARES):
        raise ConfigError(f"a knee of {knee} sessions leaves no three levels.", "It must be 5 or more.", field="--knee")
    return sessions


def level(result: RunResult, window: MeasuredWindow) -> Level:
    """Boil a run down; raises ConfigError if it says too little."""
    whole = result.latencies.get(VOICE_TO_VOICE)
    if whole is None or result.counts.answered < LEAST_TURNS:
        raise ConfigError(
            f"only {result.counts.answered} turns were answered, {LEAST_TURNS} are needed.",
            "Run longer, or with more sessions.",
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
        parts={name: spell(latency) for name, latency in result.latencies.items() if name in _PARTS and latency.count},
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


def spell(latency: Latency) -> TimeDistribution:
    """The distribution of a latency: from its histogram if it has one, else from its printed percentiles."""
    if latency.histogram:
        histogram = HdrHistogram.decode(latency.histogram)
        values = [histogram.get_value_at_percentile(100 * share) / 1e6 for share in _SHARES_OF_A_CURVE]
        return TimeDistribution(latency.mean_ms / 1000, _rising(zip(_SHARES_OF_A_CURVE, values, strict=True)))
    least, most = latency.curve[0][1] / 1000, latency.curve[-1][1] / 1000
    inner = [(percentile / 100, ms / 1000) for percentile, ms in latency.curve if 0 < percentile < 100]
    return TimeDistribution(latency.mean_ms / 1000, _rising([(0.0, least), *inner, (1.0, most)]))


def histogram_points(histogram: Histogram) -> tuple[tuple[float, float], ...]:
    """A histogram as quantiles whose mean is the exact one: buckets know shape, the sum knows the mean."""
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
    known = counts.service.count > 0
    return StageLevel(
        replicas=counts.replicas,
        requests=counts.requests,
        served=counts.service.count,
        service_mean_s=counts.service.mean_s if known else 0.0,
        service=histogram_points(counts.service) if known else (),
        queue_mean_s=counts.queue.mean_s if counts.queue.count else 0.0,
        in_service=counts.service.sum_s / for_s / counts.replicas,
        cores=counts.cpu_s / for_s / counts.replicas,
        memory_mb=counts.memory_mb,
    )
