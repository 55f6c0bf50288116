"""Sample results of load runs for tests."""

from __future__ import annotations

from typing import Any

from loadtest.generator.stage_metrics import StageCounts
from loadtest.results.result import (
    VOICE_TO_VOICE,
    Counts,
    FitnessCheck,
    Latency,
    Region,
    RunOutcome,
    RunResult,
    TimelineSlice,
    Verdict,
)
from loadtest.results.turn_record import WATERFALL
from rejoinder.core.measuring.histogram import Histogram


def latency(ms: float, count: int = 50) -> Latency:
    """Return a distribution of `count` turns which all have a latency of `ms`."""
    return Latency(count, mean_ms=ms, p50_ms=ms, p90_ms=ms, p95_ms=ms, p99_ms=ms, max_ms=ms, curve=((50, ms), (99, ms)))


def result(outcome: RunOutcome = RunOutcome.PASS, whole_ms: float | None = 400.0, **change: Any) -> RunResult:
    """Return a run of 50 turns in which `llm_first_token` is the largest stage.

    `whole_ms` is the latency of every turn; None means that no latency was measured. `change` replaces fields.
    """
    latencies: dict[str, Latency] = {}
    if whole_ms is not None:
        shares = dict.fromkeys(WATERFALL, 10.0)
        shares["llm_first_token"] = whole_ms - 10.0 * (len(WATERFALL) - 1)
        latencies = {name: latency(ms) for name, ms in (shares | {VOICE_TO_VOICE: whole_ms}).items()}
    fields: dict[str, Any] = {
        "outcome": outcome,
        "scenario": {
            "tier": "good",
            "sessions": 3,
            "arrivals": "ramp",
            "codec": "audio/pcm",
            "turn_detection": "semantic_vad",
            "seed": 1,
        },
        "schedule_sha256": "0123456789abcdef" * 4,
        "started_at": "2026-01-01T00:00:00+00:00",
        "held_s": 60.0,
        "engines": {"llm": "emulated log-normal 150 ms", "tts": "piper en_US"},
        "counts": Counts(sessions_scheduled=3, sessions_opened=3, turns=50, answered=49, interrupted=1),
        "checks": (
            FitnessCheck("send lateness p99", 0.4, 5.0, "ms"),
            FitnessCheck("CPU run-queue wait", 0.1, 0.02, "of the time", warning=True),
        ),
        "verdicts": (
            Verdict(
                "good tier",
                source="guide 3.1",
                statistic="p50",
                limit_ms=800,
                observed_ms=whole_ms,
                violations=0,
                turns=50,
                outcome=RunOutcome.UNDECIDED,
                needed=7,
            ),
        ),
        "latencies": latencies,
        "regions": (Region("us-europe", rtt_ms=135.0, turns=50, p50_ms=whole_ms, p95_ms=whole_ms, p99_ms=whole_ms),),
        "timeline": (
            TimelineSlice(0.0, sessions=3, turns=25, failed=0, p50_ms=whole_ms, p95_ms=whole_ms),
            TimelineSlice(30.0, sessions=3, turns=25, failed=1, p50_ms=None, p95_ms=None),
        ),
    }
    return RunResult(**(fields | change))


def idle_stage(stage: str, **change: Any) -> StageCounts:
    """Return the counts of one replica of a stage that served no request. `change` replaces fields."""
    fields: dict[str, Any] = {
        "replicas": 1,
        "queue": Histogram(),
        "service": Histogram(),
        "requests": 0,
        "cpu_s": 0,
        "memory_mb": 0,
        "ends": {},
        "drafts": {},
    }
    return StageCounts(stage, **(fields | change))
