"""Degradation measures of one session: what its replies omit while a stage is slow.

`rejoinder.core.reply.degradation` decides which measures are in force. This module applies them to replies. While the
stages are loaded by the calls of all hosts (`StageAdmission.yields`), speculative work stops in every session, before
its own turns are late.
"""

from __future__ import annotations

from actors.stages.services import Services
from rejoinder.core.capacity.budgets import total_limit_ms
from rejoinder.core.measuring.waterfall import Stage, Waterfall
from rejoinder.core.reply.degradation import DegradationMeasure, DegradationPolicy, processing_s
from rejoinder.core.reply.segmenter import Segmenter

Measures = frozenset[DegradationMeasure]


class SessionDegradation:
    """Degradation measures of one session. Call `observe` after each answered turn: late turns put measures in force.

    A reply keeps the measures that were in force when it began.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._policy = DegradationPolicy(services.settings.degradation, small=services.stages.llm_backup is not None)

    @property
    def measures(self) -> Measures:
        """The measures in force for a reply that begins now."""
        measures = self._policy.steps(self._services.clock())
        admission = self._services.stage_admission
        return measures | {DegradationMeasure.NO_SPECULATION} if admission and admission.yields else measures

    @property
    def speculates(self) -> bool:
        """True while drafts and interim transcripts are allowed: work that may turn out not to be needed."""
        return DegradationMeasure.NO_SPECULATION not in self.measures

    def segmenter(self, measures: Measures) -> Segmenter:
        """Return the segmenter that divides an answer into segments for text-to-speech.

        `measures` are those that the reply keeps.
        """
        settings = self._services.settings.conversation
        longest = settings.first_segment_words
        language = self._services.settings.tts.spoken_language
        shortest = min(settings.first_segment_min_words, longest)
        if DegradationMeasure.SHORT_SEGMENT in measures:
            return Segmenter(shortest, settings.segment_words, clauses=True, language=language)
        first_words = self._services.first_segment_sizer.first_words(shortest, longest, self._services.clock())
        return Segmenter(first_words, settings.segment_words, language=language)

    def filler_after_ms(self, measures: Measures) -> float:
        """Return the maximum time from the caller's last speech to a filler, in ms; 0 means no filler.

        `measures` are those that the reply keeps.
        """
        default_ms = self._services.settings.conversation.filler_after_ms
        return (
            min(default_ms, total_limit_ms(self._policy.tier)) if DegradationMeasure.FILLER in measures else default_ms
        )

    def observe(self, divided: Waterfall, *, drafted: bool) -> None:
        """Record an answered turn whose audio came from the engines. Count the measures that it puts in force.

        Args:
            divided: The stage durations of the turn.
            drafted: Whether the reply was speculative. If it was ready before the end of turn, the turn is not late.
        """
        now, before = self._services.clock(), self.measures
        held = drafted and divided.stages_s[Stage.ENDPOINT] > 0
        self._policy.observe(divided.stages_s, now, held=held)
        if self._services.stage_admission:
            self._services.stage_admission.turn(0.0 if held else processing_s(divided.stages_s), now)
        for measure in self.measures - before:
            self._services.metrics.degradation(measure.value)
