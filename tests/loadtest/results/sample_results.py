"""Results of runs as a test wants them."""

from __future__ import annotations

from typing import Any

from loadtest.results.result import VOICE_TO_VOICE, Check, Counts, Latency, Moment, Outcome, Region, RunResult, Verdict
from loadtest.results.turn_record import WATERFALL


def latency(ms: float, count: int = 50) -> Latency:
    """Every turn took so long."""
    return Latency(count, ms, ms, ms, ms, ms, ms, curve=((50, ms), (99, ms)))


def result(outcome: Outcome = Outcome.PASS, whole_ms: float | None = 400.0, **change: Any) -> RunResult:
    """A run of 50 turns; the first token takes most of each."""
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
            Check("send lateness p99", 0.4, 5.0, "ms"),
            Check("waiting for a core", 0.1, 0.02, "share", warning=True),
        ),
        "verdicts": (Verdict("good tier", "guide 3.1", "p50", 800, whole_ms, 0, 50, Outcome.UNDECIDED, needed=7),),
        "latencies": latencies,
        "regions": (Region("us-europe", 135.0, 50, whole_ms, whole_ms, whole_ms),),
        "timeline": (Moment(0.0, 3, 25, 0, whole_ms, whole_ms), Moment(30.0, 3, 25, 1, None, None)),
    }
    return RunResult(**(fields | change))
