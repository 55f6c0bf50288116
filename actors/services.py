"""What every conversation of a host shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.hedge import Hedger
from actors.ports import Journal, Metrics, Stages
from actors.questions import Questions
from actors.recall import Recall
from rejoinder.core.config import Settings
from rejoinder.core.pace import Pace
from rejoinder.core.phrases import Foresight, Phrases
from rejoinder.core.speculation import Speculation


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
