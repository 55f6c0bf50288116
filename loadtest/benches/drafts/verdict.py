"""Settings of the server in the drafts bench, and the verdict on a run: no discarded speculative reply was heard.

The verdict uses the callers' evidence (`evidence.py`) and the server's own counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.benches.drafts.evidence import Evidence
from loadtest.generator.stage_metrics import StageCounts

SETTINGS: dict[str, Any] = {
    "admission": {"enabled": False},  # all callers must be in at once, and their drafts must not yield
    "stt": {
        "engine": "emulated",
        "max_queue": 64,
        "emulation": {"curve": {"median_ms": 60, "sigma": 0.3}, "full_stop": True},
    },
    "llm": {
        "engine": "emulated",
        "max_queue": 64,
        "emulation": {"curve": {"median_ms": 80, "sigma": 0.4}, "tokens": 6, "marked": True},
    },
    "tts": {
        "engine": "emulated",
        "max_queue": 64,
        "emulation": {"curve": {"median_ms": 40, "sigma": 0.3}, "marked": True},
    },
    "endpointing": {
        **dict.fromkeys(("min_silence_ms", "patience_ms", "fallback_silence_ms", "max_silence_ms"), 800),
        **dict.fromkeys(("ask_after_ms", "verdict_timeout_ms"), 2000),
    },
    "speculation": {"max_concurrent": 200, "waste_budget": 10, "waste_cap": 1000},
    "conversation": {"filler_after_ms": 0},
    "degradation": {"enabled": False},
}
"""Settings of the measured server.

Voice activity detection is real. Every turn ends after 0.8 s of silence, without a call of the turn detector. The
limits on wasted work are lifted, so that every possible speculative reply starts. Fillers and degradation are off, so
that the server speaks answers only.
"""

LEAST_TRIED = 0.5
"""Minimum number of discarded speculative replies per pause. A run with fewer proves nothing and fails."""


@dataclass(frozen=True, slots=True)
class DraftFindings:
    """Result of a run of the drafts bench.

    Attributes:
        callers: Number of callers.
        hesitations: Number of pauses inside turns, in all scripts.
        evidence: Sum of the callers' evidence.
        stages: The server's counters during the run, by stage.
        restarted: Names of the replicas that restarted during the run.
        late_ms: 99th percentile of the delay with which the callers sent their frames, in milliseconds.
        took_s: Length of the run in seconds.
    """

    callers: int
    hesitations: int
    evidence: Evidence
    stages: Mapping[str, StageCounts]
    restarted: tuple[str, ...]
    late_ms: float
    took_s: float

    def drafts(self, outcome: str) -> int:
        """Return the number of speculative replies with an outcome, over all hosts. 0 if no host reported.

        `outcome` is "begun" (all), "kept", "discarded" or "discarded_ready" (discarded with audio ready to be sent).
        """
        host = self.stages.get("host")
        return round(host.drafts.get(outcome, 0)) if host else 0

    def requests(self, stage: str) -> int:
        """Return the number of requests to a stage that ended during the run, or 0 if the stage was not reported."""
        return round(self.stages[stage].requests) if stage in self.stages else 0

    @property
    def tried(self) -> bool:
        """True if the run discarded enough speculative replies to prove something.

        It must have discarded at least `LEAST_TRIED` per pause, and at least one that had audio ready to be sent.
        """
        return self.drafts("discarded") >= LEAST_TRIED * self.hesitations and self.drafts("discarded_ready") > 0

    @property
    def accounted(self) -> bool:
        """True if every speculative reply that was started was kept or discarded, and no replica restarted."""
        return self.drafts("begun") == self.drafts("kept") + self.drafts("discarded") and not self.restarted

    @property
    def holds(self) -> bool:
        """True if the run passes: every turn was answered, no answer has a leak, and the run tested enough to prove it.

        The proof requires that `tried` and `accounted` are true, some watermarks were read, every transcript matches
        the spoken phrases, and no error occurred.
        """
        evidence = self.evidence
        clean = not (evidence.leaks or evidence.misheard or evidence.faults or evidence.unanswered)
        return clean and evidence.judged_s > 0 and self.tried and self.accounted
