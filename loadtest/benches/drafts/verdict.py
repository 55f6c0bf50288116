"""What a run of hesitant callers comes to, with what the server counted meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.benches.drafts.evidence import Evidence
from loadtest.generator.stage_metrics import StageCounts

SETTINGS: dict[str, Any] = {
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
    "endpointing": {"cut_off_budget": 0.002, "pause_ms": 350, "ask_after_ms": 2000, "verdict_timeout_ms": 2000},
    "speculation": {"max_concurrent": 200, "waste_budget": 10, "waste_cap": 1000},
    "conversation": {"filler_after_ms": 0},
    "degradation": {"enabled": False},
}
"""Voice activity is real. The words of an emulated transcript, which read finished, take a turn after some 0.8 s of
silence, and the turn model is never asked. Every draft that may begin does: the limits on wasted work are lifted.
Nothing is said but answers.
"""

LEAST_TRIED = 0.5
"""Of the pauses inside turns at least so many must have discarded a draft, or the run proves nothing."""


@dataclass(frozen=True, slots=True)
class DraftFindings:
    """`hesitations`: the pauses inside turns that the scripts hold; `stages`: by the server's own count."""

    callers: int
    hesitations: int
    evidence: Evidence
    stages: Mapping[str, StageCounts]
    restarted: tuple[str, ...]
    late_ms: float
    took_s: float

    def drafts(self, outcome: str) -> int:
        """How many drafts came to this, by the host's count."""
        host = self.stages.get("host")
        return round(host.drafts.get(outcome, 0)) if host else 0

    def requests(self, stage: str) -> int:
        """How many requests a stage ended."""
        return round(self.stages[stage].requests) if stage in self.stages else 0

    @property
    def tried(self) -> bool:
        """Whether pauses did discard drafts, some of them with audio that only the gate kept back."""
        return self.drafts("discarded") >= LEAST_TRIED * self.hesitations and self.drafts("discarded_ready") > 0

    @property
    def accounted(self) -> bool:
        """Whether every draft that was begun was kept or discarded."""
        return self.drafts("begun") == self.drafts("kept") + self.drafts("discarded") and not self.restarted

    @property
    def holds(self) -> bool:
        seen = self.evidence
        clean = not (seen.leaks or seen.misheard or seen.faults or seen.unanswered)
        return clean and seen.judged_s > 0 and self.tried and self.accounted
