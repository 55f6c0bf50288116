"""What a load run came to: one value, written as JSON and as an HTML report.

All latencies are milliseconds, measured from scheduled instants on the clock of the one process that stamped both
ends. Percentiles come from merged histograms (three significant digits), never from averaged percentiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
CURVE = (1, 5, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.9, 100)

VOICE_TO_VOICE = "voice_to_voice"
"""The key of the whole turn in `RunResult.latencies`; the others are the stages of
`loadtest.results.turn_record.WATERFALL`,
and `rtt`, `stop` (barge-in), `setup` (dial to session.updated)."""


class RunOutcome(Enum):
    """PASS and FAIL are claims about the system at 95% confidence; UNDECIDED wants more turns; INVALID blames the
    generator.
    """

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"
    INVALID = "INVALID"

    @property
    def exit_code(self) -> int:
        """For CI; 2 is taken by usage and configuration errors."""
        return {"PASS": 0, "FAIL": 1, "INVALID": 3, "UNDECIDED": 4}[self.value]


@dataclass(frozen=True, slots=True)
class Latency:
    """One distribution. `curve`: (percentile, ms) at CURVE. `histogram`: HdrHistogram in microseconds, base64."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    curve: tuple[tuple[float, float], ...] = ()
    histogram: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit held against the measurements: `violations` of `turns` exceeded `limit_ms`.

    `statistic` is p50, p95, p99 (a quantile must lie below the limit) or share (at least so many must succeed).
    `needed` is how many more turns would decide it if they behave like those so far; 0 unless UNDECIDED.
    """

    name: str
    source: str
    statistic: str
    limit_ms: float
    observed_ms: float | None
    violations: int
    turns: int
    outcome: RunOutcome
    needed: int = 0


@dataclass(frozen=True, slots=True)
class FitnessCheck:
    """The generator's own fitness: `measured` must not exceed (or fall below, `at_least`) `limit`. A `warning` check
    cannot make a run INVALID.
    """

    name: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False
    warning: bool = False

    @property
    def ok(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass(frozen=True, slots=True)
class Moment:
    """One slice of the timeline, `at_s` after the start: live sessions, and the turns that ended in it."""

    at_s: float
    sessions: int
    turns: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    underruns: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """Turns and sessions by what became of them; a turn that was not answered in time is `unanswered`, and counts in
    every latency at the time-out's value.
    """

    sessions_scheduled: int = 0
    sessions_opened: int = 0
    sessions_refused: int = 0
    sessions_failed: int = 0
    sessions_dropped: int = 0
    turns: int = 0
    answered: int = 0
    interrupted: int = 0
    failed: int = 0
    unanswered: int = 0
    premature: int = 0
    hedged: int = 0
    underruns: int = 0
    audio_s: float = 0.0
    underrun_s: float = 0.0
    frames_scheduled: int = 0
    frames_sent: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    """The callers of one network route."""

    name: str
    rtt_ms: float
    turns: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class RunResult:
    """A whole run. `engines`: stage to engine, as the server names them; those beginning with "emulated" measure the
    system, never a model. `memory_mb`: (seconds after the start, resident MiB of all replicas) while calls were held.
    """

    outcome: RunOutcome
    scenario: dict[str, object]
    schedule_sha256: str
    started_at: str
    held_s: float
    engines: dict[str, str]
    counts: Counts
    checks: tuple[FitnessCheck, ...]
    verdicts: tuple[Verdict, ...]
    latencies: dict[str, Latency]
    regions: tuple[Region, ...]
    timeline: tuple[Moment, ...]
    causes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    memory_mb: tuple[tuple[float, float], ...] = ()
    slowest: tuple[dict[str, object], ...] = field(default=())

    @property
    def emulated(self) -> dict[str, str]:
        return emulated(self.engines)

    @property
    def whole(self) -> Latency | None:
        """Voice to voice; None if no turn was measured."""
        return self.latencies.get(VOICE_TO_VOICE)


def emulated(engines: dict[str, str]) -> dict[str, str]:
    """Those of the engines, by stage, that are no models."""
    return {stage: engine for stage, engine in engines.items() if engine.startswith("emulated")}
