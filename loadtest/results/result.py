"""Result of a load run: one value that is written as JSON (`--json`) and as an HTML report (`--html`).

The JSON document has one key for each attribute of `RunResult`. Its nested objects have one key for each attribute of
their class. Enumerations are written as their values.

All latencies are in milliseconds. They are measured from scheduled times, with both ends on the clock of one process.
Percentiles come from merged histograms with three significant digits, never from averaged percentiles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

CURVE = (1, 5, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.9, 100)
"""Percentiles of `Latency.curve`."""

VOICE_TO_VOICE = "voice_to_voice"
"""Key of the latency of the whole turn in `RunResult.latencies`."""


class RunOutcome(Enum):
    """Verdict on a run or on one limit, at 95% confidence.

    Attributes:
        PASS: The system meets the limit. Exit status 0.
        FAIL: The system exceeds the limit. Exit status 1.
        UNDECIDED: There are too few turns to decide. Exit status 4.
        INVALID: The load generator failed its self-checks, so the run does not judge the system. Exit status 3.
    """

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"
    INVALID = "INVALID"

    @property
    def exit_code(self) -> int:
        """Exit status of the command, for CI. Status 2 is not used here: it means a usage or configuration error."""
        return {"PASS": 0, "FAIL": 1, "INVALID": 3, "UNDECIDED": 4}[self.value]


@dataclass(frozen=True, slots=True)
class Latency:
    """Distribution of one latency.

    Attributes:
        count: Number of values.
        mean_ms: Mean in milliseconds.
        p50_ms: Median in milliseconds.
        p90_ms: 90th percentile in milliseconds.
        p95_ms: 95th percentile in milliseconds.
        p99_ms: 99th percentile in milliseconds.
        max_ms: Maximum in milliseconds.
        curve: (percentile, milliseconds) pairs at the percentiles of `CURVE`.
        histogram: The whole distribution as a base64-encoded HdrHistogram of microseconds.
    """

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
    """Verdict on one limit.

    Attributes:
        name: Name of the limited quantity.
        source: Source of the limit: a section of the latency guide, or Rejoinder's own choice.
        statistic: p50, p95 or p99 (this percentile must be below the limit), or share (at least this share must
            succeed).
        limit_ms: The limit in milliseconds. For a share, the limit in percent.
        observed_ms: The measured statistic in milliseconds, or null if nothing was measured. For a share, the measured
            share in percent.
        violations: Number of turns at or above the limit. For a share, the number of failures.
        turns: Number of turns measured. For a share, the number of items counted: calls, turns, or milliseconds of
            audio.
        outcome: PASS, FAIL or UNDECIDED.
        needed: Additional turns that would decide the verdict if the rate of violations stays the same. 0 unless
            UNDECIDED.
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
    """One self-check of the load generator.

    Attributes:
        name: Name of the measured quantity.
        measured: The measured value.
        limit: The largest acceptable value, or the smallest one if `at_least` is true.
        unit: Unit of `measured` and `limit`.
        at_least: True if `limit` is a lower bound.
        warning: True if a violation only warns. A violation of any other check makes the run INVALID.
    """

    name: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False
    warning: bool = False

    @property
    def ok(self) -> bool:
        """True if the measured value is within the limit."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass(frozen=True, slots=True)
class TimelineSlice:
    """One slice of the run's timeline.

    Attributes:
        at_s: Start of the slice in seconds after the start of the run.
        sessions: Calls open at the end of the slice.
        turns: Measured turns that ended in the slice.
        failed: Measured turns that ended in the slice and failed or were unanswered.
        p50_ms: Median voice-to-voice latency in milliseconds, or null if no turn ended in the slice.
        p95_ms: 95th percentile of the voice-to-voice latency in milliseconds, or null if no turn ended in the slice.
        underruns: Playback underruns of the turns that ended in the slice.
        refused: Calls that the server refused in the slice.
    """

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
    """Calls, turns and traffic by outcome.

    Calls, frames and bytes are counted over the whole run. Turns, replies and audio are counted for the turns whose
    last sample of speech was due within the measured time. A turn that failed or was unanswered counts in the
    voice-to-voice latency with `behavior.answer_timeout_s`.

    Attributes:
        sessions_scheduled: Calls in the schedule.
        sessions_opened: Calls that were connected and configured.
        sessions_refused: Calls that the server refused with HTTP 429 or 503.
        sessions_failed: Calls that could not be set up for any other reason.
        sessions_dropped: Calls that the server ended, or whose connection broke, before the caller hung up, and that
            did not continue on another connection.
        sessions_lost: Connections that the server ended, or that broke, before the caller hung up.
        sessions_resumed: Connections lost after which the call continued on another connection.
        turns: Turns, by outcome: answered + interrupted + failed + unanswered.
        answered: Turns whose reply was played to its end.
        interrupted: Turns whose reply was audible until the caller interrupted it or hung up.
        failed: Turns whose reply failed or did not complete.
        unanswered: Turns without an audible answer.
        premature: Replies that started before the caller's utterance was over, because the server took a pause for its
            end.
        cut_off: Turns in which at least one premature reply started.
        interruptions: Replies that a caller talked over for long enough to notice whether they stop.
        late_yields: Of these, the replies that went on for more than 300 ms, besides the round trip of the route.
        false_interruptions: Replies that the server silenced although their caller said nothing.
        responses: Responses that ended in the measured time, of all kinds.
        responses_failed: Of these, the responses with an error of a stage or its provider.
        hedged: Answered or interrupted turns whose language model request was hedged.
        underruns: Playback underruns in the replies of answered and interrupted turns. An underrun happens when the
            player runs out of audio before the end of a reply.
        audio_s: Audio of the replies of answered and interrupted turns, in seconds.
        underrun_s: Silence inside the replies of answered and interrupted turns, mostly from underruns, in seconds.
        frames_scheduled: Audio frames that were due.
        frames_sent: Audio frames that were sent.
        bytes_sent: Payload bytes of the WebSocket messages sent.
        bytes_received: Payload bytes of the WebSocket messages received.
    """

    sessions_scheduled: int = 0
    sessions_opened: int = 0
    sessions_refused: int = 0
    sessions_failed: int = 0
    sessions_dropped: int = 0
    sessions_lost: int = 0
    sessions_resumed: int = 0
    turns: int = 0
    answered: int = 0
    interrupted: int = 0
    failed: int = 0
    unanswered: int = 0
    premature: int = 0
    cut_off: int = 0
    interruptions: int = 0
    late_yields: int = 0
    false_interruptions: int = 0
    responses: int = 0
    responses_failed: int = 0
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
    """Voice-to-voice latency of the callers on one network route.

    Attributes:
        name: Name of the route.
        rtt_ms: Mean round-trip time of the emulated route in milliseconds.
        turns: Number of turns.
        p50_ms: Median in milliseconds.
        p95_ms: 95th percentile in milliseconds.
        p99_ms: 99th percentile in milliseconds.
    """

    name: str
    rtt_ms: float
    turns: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class FailingCalls:
    """Calls of a run in which the same thing went wrong most often.

    Attributes:
        cause: What went wrong, in words.
        calls: Number of calls.
        regions: Number of the calls on each network route.
    """

    cause: str
    calls: int
    regions: dict[str, int]


@dataclass(frozen=True, slots=True)
class RunResult:
    """Result of a whole run.

    Attributes:
        outcome: PASS, FAIL, UNDECIDED or INVALID.
        scenario: The scenario's keys and values, without the API key.
        schedule_sha256: Hash of the frozen schedule. Runs with the same hash offered the same load.
        started_at: Start of the run, ISO 8601 in UTC.
        held_s: Measured time in seconds.
        engines: Engine of each stage, as the server reports it. An engine that begins with "emulated" is not a model.
        counts: Calls, turns and traffic by outcome.
        checks: Self-checks of the load generator.
        verdicts: Verdicts on every limit. The ones that decide `outcome` come first.
        latencies: Distributions by series. The stages silence, endpoint, stt, llm_first_token, first_segment,
            tts_first_audio, delivery and unattributed of a turn sum to its voice_to_voice. eou is silence + endpoint.
            audio is delivery + unattributed without the emulated route. rtt is the WebSocket ping plus the emulated
            route. stop is the time from an interruption to silence. setup is the time from a call's scheduled arrival
            to its configured session. raw:STAGE is a stage's own duration, including time that overlaps with other
            stages.
        regions: Voice-to-voice latency by network route.
        timeline: The run in at most 240 slices of at least 1 s.
        causes: Failed self-checks that make the run INVALID, one sentence each. Empty otherwise.
        notes: Other observations about the run, one sentence each.
        memory_mb: (seconds after the start of the run, MiB) samples of the resident memory of all replicas during the
            measured time.
        slowest: The slowest turns with their call, turn, clip, region, outcome, voice-to-voice latency (ms) and the
            server's stages (stages_ms), slowest first.
        failing: The calls with faults, by the fault that each had most often, largest group first.
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
    timeline: tuple[TimelineSlice, ...]
    causes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    memory_mb: tuple[tuple[float, float], ...] = ()
    slowest: tuple[dict[str, object], ...] = field(default=())
    failing: tuple[FailingCalls, ...] = ()

    @property
    def emulated(self) -> dict[str, str]:
        """Names of the emulated engines, by stage."""
        return emulated(self.engines)

    @property
    def whole(self) -> Latency | None:
        """Distribution of the voice-to-voice latency, or None if no turn was measured."""
        return self.latencies.get(VOICE_TO_VOICE)


def emulated(engines: dict[str, str]) -> dict[str, str]:
    """Return the entries of `engines` (names by stage) that are emulations and not real models."""
    return {stage: engine for stage, engine in engines.items() if engine.startswith("emulated")}
