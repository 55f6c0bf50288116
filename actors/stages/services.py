"""What every conversation of a host shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.stages.answer_cache import Recall
from actors.stages.hedged_llm import Hedger
from actors.stages.ports import Journal, Metrics, Stages
from actors.stages.turn_detector_queue import Questions
from rejoinder.core.reply.draft_budget import Speculation
from rejoinder.core.reply.first_segment import Pace
from rejoinder.core.reply.held_clips import Foresight, Phrases
from rejoinder.core.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """`clock` is monotonic seconds; `phrases` are spoken without any engine."""

    stages: Stages
    settings: Settings
    hedger: Hedger
    phrases: Phrases
    metrics: Metrics
    journal: Journal
    clock: Callable[[], float]
    speculation: Speculation
    recall: Recall
    questions: Questions = field(default_factory=Questions)
    foresight: Foresight = field(default_factory=Foresight)
    pace: Pace = field(default_factory=Pace)

    @classmethod
    def over(
        cls,
        stages: Stages,
        settings: Settings,
        phrases: Phrases,
        metrics: Metrics,
        journal: Journal,
        clock: Callable[[], float],
    ) -> Services:
        """Those of a host whose conversations use `stages`."""
        hedger = Hedger(stages.llm, settings, metrics, clock, stages.llm_backup)
        speculation = Speculation(settings.speculation)
        recall = Recall(stages.answers, settings.answer_cache, metrics, clock)
        return cls(stages, settings, hedger, phrases, metrics, journal, clock, speculation, recall)
