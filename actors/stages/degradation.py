"""What one session does without while a stage is slow: `rejoinder.core.reply.degradation` decides, this applies it
to replies.
"""

from __future__ import annotations

from actors.stages.services import Services
from rejoinder.core.capacity.budgets import total_limit_ms
from rejoinder.core.measuring.waterfall import Stage, Waterfall
from rejoinder.core.reply.degradation import DegradationMeasure, DegradationPolicy
from rejoinder.core.reply.segmenter import Segmenter

Steps = frozenset[DegradationMeasure]


class SessionDegradation:
    """Of one session. A reply keeps the steps with which it began."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ladder = DegradationPolicy(services.settings.degradation, small=services.stages.llm_backup is not None)

    @property
    def steps(self) -> Steps:
        """Those in force for what begins now."""
        return self._ladder.steps(self._services.clock())

    @property
    def speculates(self) -> bool:
        """Whether work may be done before it is sure to be needed."""
        return DegradationMeasure.NO_SPECULATION not in self.steps

    def segmenter(self, steps: Steps) -> Segmenter:
        """How an answer is cut for the voice."""
        settings = self._services.settings.conversation
        most = settings.first_segment_words
        least = min(settings.first_segment_min_words, most)
        if DegradationMeasure.SHORT_SEGMENT in steps:
            return Segmenter(least, settings.segment_words, clauses=True)
        first_words = self._services.pace.first_words(least, most, self._services.clock())
        return Segmenter(first_words, settings.segment_words)

    def filler_after_ms(self, steps: Steps) -> float:
        """When a caller should hear something; 0: never mind."""
        usual_ms = self._services.settings.conversation.filler_after_ms
        return min(usual_ms, total_limit_ms(self._ladder.tier)) if DegradationMeasure.FILLER in steps else usual_ms

    def observe(self, divided: Waterfall, *, drafted: bool) -> None:
        """A turn was answered by its engines."""
        now, before = self._services.clock(), self.steps
        held = drafted and divided.stages_s[Stage.ENDPOINT] > 0
        self._ladder.observe(divided.stages_s, now, held=held)
        for step in self.steps - before:
            self._services.metrics.degradation(step.value)
