"""What every conversation of a host shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.hedge import Hedger
from actors.ports import Journal, Metrics, Stages
from actors.questions import Questions
from actors.recall import Recall
from actors.voice import Clip
from rejoinder.core.config import Settings
from rejoinder.core.speculation import Speculation


@dataclass(frozen=True, slots=True)
class Services:
    """`clock` is monotonic seconds; `apology` is spoken when a stage fails and nothing else can be."""

    stages: Stages
    settings: Settings
    hedger: Hedger
    apology: Clip
    metrics: Metrics
    journal: Journal
    clock: Callable[[], float]
    speculation: Speculation
    recall: Recall
    questions: Questions = field(default_factory=Questions)

    @classmethod
    def over(
        cls,
        stages: Stages,
        settings: Settings,
        apology: Clip,
        metrics: Metrics,
        journal: Journal,
        clock: Callable[[], float],
    ) -> Services:
        """Those of a host whose conversations use `stages`."""
        hedger = Hedger(stages.llm, settings, metrics, clock)
        speculation = Speculation(settings.speculation)
        recall = Recall(stages.answers, settings.answer_cache, metrics, clock)
        return cls(stages, settings, hedger, apology, metrics, journal, clock, speculation, recall)
