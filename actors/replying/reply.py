"""One reply, from the prompt to the last audible sample: generation, synthesis, delivery.

The response opens on the wire with its first words or audio, or at once if the client requested it. For a turn
with an empty transcript no event is sent. A draft prepares the audio of its first segment, and then waits for
`release`. No part of the draft is sent before, and cancelling its task discards it.

A failed stage call is repeated (`actors.stages.retry`). If nothing is audible soon after a failure, the apology is
played from a prepared clip. The answer follows in the same response once the stage works again. A reply that fails, or
ends without anything audible, ends with a short sentence and a status that says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Literal

from actors.replying.called_tools import CalledTools
from actors.replying.fillers import Fillers
from actors.replying.openings import answer_stream, opening_of
from actors.replying.requests import CommittedTurn, ReplyTerms
from actors.replying.response import Response, ResponseEnd, ResponsePhase
from actors.replying.speech_output import SpeechOutput, SpeechOutputSettings
from actors.stages.degradation import SessionDegradation
from actors.stages.hedged_llm import GenerationStats
from actors.stages.ports import LlmRequest
from actors.stages.retry import StageFailures
from actors.stages.session_context import SessionContext
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE
from rejoinder.core.errors import CallerError, RejoinderError
from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.reply.answer_cache import CacheScope
from rejoinder.core.reply.degradation import DegradationMeasure
from rejoinder.core.reply.held_clips import HeldClip
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.segmenter import Segmenter, segment_of
from rejoinder.core.reply.spoken.hidden import HiddenTextFilter
from rejoinder.core.reply.spoken.units import SpeechSegment
from rejoinder.core.settings.settings import Settings
from rejoinder.core.survival.snapshot import SpokenProgress
from rejoinder.core.wire.endings import INTERNAL, Sentence, ending_of, failure_of, stage_of
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.server import ResponseEvents, ResponseStatus

logger = logging.getLogger(__name__)

# Minimum words of a segment that is spoken early, because the caller hears nothing and the text arrives slowly.
STARVING_WORDS = 3


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """Everything that a reply needs to know: what it answers, and how.

    Attributes:
        events: Creates the wire events of the response.
        prompt: Waits for the transcript and returns the prompt; None means that there is nothing to answer.
        report: Returns the `rejoinder` field of response.done. Called once, if the client saw the response.
        terms: The request, the voice and the speed.
        failures: The stages that currently fail for the turn. They may have failed before the reply began.
        degradation: The session's degradation measures.
        cache_scope: The tenant and the tools. Only conversations with the same ones share the answer.
        answered_turn: Returns the turn that the reply answers. None if it answers no turn, or is a draft of a turn that
            is not committed.
        notice: Returns the words of the reply if the turn needs no answer of the language model, because the caller
            speaks a language that is not served; "" otherwise. Called when the transcript is available.
        answers: False if the reply only apologises, so that it is not continued after a resume.
    """

    events: ResponseEvents
    prompt: Callable[[], Awaitable[tuple[ChatMessage, ...] | None]]
    report: Callable[[Reply, ResponseStatus], Json]
    terms: ReplyTerms
    failures: StageFailures
    degradation: SessionDegradation
    cache_scope: CacheScope
    answered_turn: Callable[[], CommittedTurn | None]
    notice: Callable[[], str] = lambda: ""
    answers: bool = True


class Reply:
    """One reply. Call `run` once. `cut` cancels the reply at any time.

    After the end of `run`, or after `cut`, `open` is False and the conversation contains what was heard. A drafted
    reply sends nothing before `release`.

    Attributes:
        plan: What the reply answers, and how.
        drafted: True if the reply is speculative.
        marks: Stage times of the reply; from `release` on, of the turn.
        measures: Degradation measures in force when the reply began.
        generation: Facts about the generation.
        response: The response on the wire.
        ready_at: Monotonic time at which the first audio was ready; None before.
        first_output_at: Monotonic time at which the first audio or text of the answer was sent; None before.
        answer_from_ms: Length of the audio before the answer (apology, filler), in ms; None before the answer.
        stop_s: Seconds from the arrival of the interrupting speech until the reply stopped; None if not interrupted.
        fillers: The apology and the filler.
    """

    def __init__(self, plan: ReplyPlan, context: SessionContext, marks: Marks, *, drafted: bool = False) -> None:
        services = context.services
        self.plan = plan
        self.drafted = drafted
        self.marks = marks
        self.measures = plan.degradation.measures
        self.generation = GenerationStats()
        self.response = Response(plan.events, context)
        self.ready_at: float | None = None
        self.first_output_at: float | None = None
        self.answer_from_ms: int | None = None
        self.stop_s: float | None = None
        self._session_id = context.id
        self._services = services
        self._failures = plan.failures
        self._text: list[str] = []
        self._said: list[SpeechSegment] = []
        self._called = CalledTools(plan.terms.request.tools, context)
        self._segments = 0
        self._generated = False
        self._released = asyncio.Event()
        if not drafted:
            self._released.set()
        self._speech = SpeechOutput(
            services.stages.tts,
            phrases=services.phrases,
            listener=self,
            settings=_speech_settings(services.settings, plan),
            failures=self._failures,
            clock=services.clock,
            released=self._released,
            stop_audio=self.response.stop_audio,
        )
        filler_ms = plan.degradation.filler_after_ms(self.measures)
        self.fillers = Fillers(
            services, speech=self._speech, failures=self._failures, released=self._released, filler_after_ms=filler_ms
        )

    @property
    def open(self) -> bool:
        """True while the response may still get events."""
        return not self.response.ended

    @property
    def answer(self) -> str:
        """All text of the answer so far, heard or not, without apologies and fillers."""
        return "".join(self._text).strip()

    @property
    def audio_ms(self) -> int:
        """Length of the audio sent so far, in ms."""
        return self._speech.audio_ms

    def progress(self) -> SpokenProgress | None:
        """Return how far the answer was spoken; None if it is in text, or no word of it is known."""
        return self._speech.progress(self._said, complete=self._generated) if self.plan.events.spoken else None

    @property
    def advance(self) -> tuple[int, bool, int]:
        """A value that changes whenever more of the answer is known, or more of it was spoken (in half seconds)."""
        return len(self._said), self._generated, self.audio_ms // 500

    def release(self, marks: Marks) -> None:
        """Start to send a drafted reply. The stage times measured so far are added to the turn's `marks`."""
        marks.join(self.marks)
        self.marks = marks
        self._released.set()

    async def run(self) -> None:
        """Run the reply to its end.

        Cancelling stops every engine that works for the reply. If the reply was released, call `cut` first, because
        it closes the response.
        """
        self._services.draft_budget.think()
        try:
            await self._run_tasks()
        except ExceptionGroup as group:
            await self._released.wait()
            await self._fail(_first_exception(group))
        finally:
            if self.first_output_at is None:
                self._services.draft_budget.thought()
        if not self.fillers.apologised:  # an answer with an apology is not cached: the failure may have affected it
            self._services.answer_cache.keep(self.generation, self.answer)

    @property
    def audible(self) -> bool:
        """True from the first audio of the answer until its end was heard."""
        return self.plan.events.spoken and self.open and self.first_output_at is not None

    def pause(self, stop_s: float, *, dropped: bool = True) -> None:
        """Stop sending audio until `resume` or `cut`. The engines continue. A reply in text is not paused.

        Args:
            stop_s: Seconds since the arrival of the speech that caused the pause.
            dropped: True if the client is told to drop what it has not played. Otherwise it plays that.
        """
        if self.plan.events.spoken:
            self.stop_s = stop_s + self._speech.pause(dropped=dropped)

    def flushed(self, at_s: float) -> None:
        """Record that the client stopped playing `at_s` seconds into the audio. A paused reply resumes from there."""
        self._speech.flushed(at_s)

    def resume(self) -> None:
        """Continue a paused reply, from the sample after the last one that was heard."""
        self.stop_s = None
        self._speech.resume()

    def cut(self, reason: str, stop_s: float | None = None) -> None:
        """Stop sending audio and close the response. No part of the reply is sent after this call.

        Args:
            reason: The reason in `status_details` on the wire.
            stop_s: Seconds since the arrival of the interrupting speech; None if no speech interrupted the reply.
        """
        heard_text = self._speech.silence() if self.plan.events.spoken else self.answer
        if self.open:
            self.stop_s = stop_s
            self._close("cancelled", {"type": "cancelled", "reason": reason}, heard_text)
            self.response.tell_truncation(round(self.played_s * 1000))
        else:
            self.response.update_item(heard_text, self.audio_ms, complete=False)

    def heard_text(self, at_s: float) -> str:
        """Return the text of the answer that was heard, if the client stopped `at_s` seconds into the audio."""
        return self._speech.heard_text(self._speech.listener_position_s(at_s))

    def words_around(self, before_s: float, after_s: float) -> tuple[str, float]:
        """Return the words around the listener's position, and how many seconds of audio are still to be heard.

        The words are those from `before_s` seconds before the position to `after_s` seconds after it, and those of all
        clips that were played. The seconds are infinite while more audio is being synthesized.
        """
        return f"{self.fillers.spoken_text} {self._speech.words_around(before_s, after_s)}".strip(), self._speech.left_s

    @property
    def played_s(self) -> float:
        """Seconds of the reply's audio that the listener has heard, clips included."""
        return self._speech.played_s

    # -- called by the speech output (SpeechListener) ------------------------------------------------------------------

    def synthesis_started(self) -> None:
        """Record that the synthesis of a segment has started (`SpeechListener`)."""
        self._mark(None, Stage.TTS_FIRST_AUDIO)

    def first_audio_ready(self) -> None:
        """Record that the first audio of a segment is ready (`SpeechListener`)."""
        self.ready_at = self.ready_at or self._services.clock()
        self._mark(Stage.TTS_FIRST_AUDIO, Stage.DELIVERY)

    def _mark(self, ended: Stage | None, started: Stage | None) -> None:
        """Record that the stage `ended` ends now and the stage `started` starts now; None for no stage."""
        now = self._services.clock()
        if ended:
            self.marks.end(ended, now)
        if started:
            self.marks.start(started, now)
        self.fillers.step_changed()

    def speaking(self, text: str) -> None:
        """Send the words of a segment or clip to the client, before its audio (`SpeechListener`)."""
        self.response.words(text.lstrip() if self._segments == 0 else text)
        self._segments += 1

    def audio(self, pcm: bytes, *, answers: bool) -> None:
        """Send 16-bit PCM at 24 kHz to the client (`SpeechListener`).

        `answers` is False for an apology, a filler, and audio that is sent again after a pause.
        """
        self.response.audio(pcm)
        if answers:
            if self.answer_from_ms is None:
                self.answer_from_ms = self.audio_ms - round(len(pcm) / SAMPLE_BYTES * 1000 / WIRE_RATE)
            self._delivered()

    def _delivered(self) -> None:
        if self.first_output_at is None:
            self.first_output_at = self._services.clock()
            self._services.draft_budget.thought()
            self.marks.end(Stage.DELIVERY, self.first_output_at)
            self._services.first_segment_sizer.voiced(self.marks, self.first_output_at)

    # -- generation ------------------------------------------------------------------------------------------------

    async def _run_tasks(self) -> None:
        async with asyncio.TaskGroup() as group:
            speaking = group.create_task(self._speech.run()) if self.plan.events.spoken else None
            if speaking:
                self.fillers.begin(group, lambda: self.marks, self.plan.answered_turn)
            answered = self._generated = await self._generate()
            await self._speech.finish()
            if speaking:
                await speaking
            self.fillers.end()
        if answered:
            await self._end()
        else:
            self._close("completed", None, self.answer)

    async def _generate(self) -> bool:
        """Send the prompt to the language model and output its text. Return False if there is nothing to answer."""
        if (prompt := await self.plan.prompt()) is None:
            return False
        if text := self.plan.terms.request.text or self.plan.notice():
            self._text.append(text)
            await self._output(text, [self._segment_of(text)])
            return True
        settings = self._services.settings.conversation
        offer = self.plan.terms.request.tools
        request = LlmRequest(
            prompt,
            self.plan.terms.request.max_tokens,
            settings.temperature,
            session=self._session_id,
            small=DegradationMeasure.SMALL_MODEL in self.measures,
            tools=offer,
        )
        segmenter = self.plan.degradation.segmenter(self.measures)
        known = self.plan.terms.request.known
        # A model that has begun to speak an opening rarely calls a tool.
        opening = "" if known or offer.active else opening_of(self.plan.events, prompt, settings.openings)
        self._mark(None, None if opening else Stage.LLM_FIRST_TOKEN)
        answer = partial(answer_stream, request, self._services, self._failures, self.generation)
        stream = answer(opening=opening, known=known, scope=self.plan.cache_scope)
        shown = HiddenTextFilter()
        async with aclosing(stream) as deltas:
            async for delta in deltas:
                self._called.read(delta)
                if not delta.text and not delta.finish:
                    continue  # an empty delta says only that the engine still works
                if delta.continues is not None:
                    await self._restart(segmenter)
                    shown = HiddenTextFilter()
                if not self._text:
                    self._mark(Stage.LLM_FIRST_TOKEN, Stage.FIRST_SEGMENT)
                held = not self._text and delta.text == opening
                text = delta.text if held else shown.push(delta.text)
                self._text.append(text)
                await self._output(text, [self._segment_of(opening)] if held else segmenter.push(text))
                if self._said and self._speech.starving():
                    await self._output("", segmenter.take(STARVING_WORDS))
        rest = shown.flush()
        self._text.append(rest)
        await self._output(rest, [*segmenter.push(rest), *segmenter.flush()])
        await self._call_tools()
        if self.generation.usage:  # token counts exist only for a complete answer; its pace is learned
            self._services.first_segment_sizer.thought(self.marks, len(self.answer.split()), self._services.clock())
        return True

    async def _call_tools(self) -> None:
        """Send the tool calls of the answer to the client, once the reply is no longer a draft."""
        if not (items := self._called.items()):
            return
        self.generation.question = None  # an answer that calls a tool must not be stored
        await self._released.wait()
        if self.answer:
            self.response.open_message()
        elif not self.audio_ms:
            self.fillers.end()  # silence is right while the tool runs; `LeadIn` limits it
        self.response.call(items)
        self._called.run(items)

    def _segment_of(self, text: str) -> SpeechSegment:
        return segment_of(text, self._services.settings.tts.spoken_language)

    async def _output(self, text: str, segments: list[SpeechSegment]) -> None:
        if not self.plan.events.spoken:
            self.response.words(text)
            if text:
                self._delivered()
            return
        for segment in segments:
            self._mark(Stage.FIRST_SEGMENT, None)
            self._said.append(segment)
            await self._speech.say(segment)

    async def _restart(self, segmenter: Segmenter) -> None:
        """Prepare for an answer that starts anew, because the next attempt does not continue the words so far.

        Words that are in no spoken segment yet are dropped. If some were spoken or sent, the configured bridge
        (`conversation.bridge`) comes between them and the new answer.
        """
        segmenter.discard()
        bridge = self._services.settings.conversation.bridge
        if not self.plan.events.spoken:
            self._text.append(f" {bridge} ")
            await self._output(self._text[-1], [])
        elif self._said:
            self._text = [" ".join(segment.written for segment in self._said), f" {bridge} "]
            await self._output("", [self._segment_of(bridge)])
        else:
            self._text.clear()

    # -- failure and end of the reply ----------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Close the response after the generation has ended.

        If the answer was empty or declined, speak the prepared sentence for that before.
        """
        spoken = self.plan.events.spoken
        present = self.answer_from_ms is not None if spoken else bool(self.answer)
        known = self.plan.terms.request.known
        present = present or bool(known and known.heard)
        ending = ending_of(self.generation.finish, present=present, called=bool(self.response.calls))
        if ending.sentence is not Sentence.NONE:
            logger.warning("a reply of %s has no answer: %s", self._session_id, ending.reason)
            self._services.metrics.error("backend", "llm_empty")
            self.generation.question = None
            if spoken:
                await self._speech.say_last(self._sentence(ending.sentence))
        self.response.open()
        self._close(ending.status, ending.details, self.answer if present else "")

    async def _fail(self, fault: Exception) -> None:
        """Speak the prepared sentence for a failed reply and close the response as failed.

        The text whose audio was sent stays in the conversation.
        """
        expected = isinstance(fault, RejoinderError)
        logger.error("reply failed: %s", fault, exc_info=None if expected else fault)
        at_fault: Literal["caller", "backend", "internal"] = "backend" if expected else "internal"
        if isinstance(fault, CallerError):
            at_fault = "caller"
        self._services.metrics.error(at_fault, stage_of(fault))
        self.generation.question = None
        if self.plan.events.spoken:
            await self._speech.say_last(self._clip(self._services.settings.conversation.failure))
        self.response.open()
        text = self._speech.sent_text() if self.plan.events.spoken else self.answer
        self._close("failed", failure_of(fault), text)

    def _sentence(self, sentence: Sentence) -> HeldClip:
        settings = self._services.settings.conversation
        return self._clip(settings.declined if sentence is Sentence.DECLINED else settings.no_answer)

    def _clip(self, text: str) -> HeldClip:
        """Return the prepared clip with this text; the apology if there is none."""
        return self._services.phrases.of(text) or self._services.phrases.apology

    def abandon(self) -> None:
        """Close the response as failed, because of an unexpected exception in this program."""
        self._close("failed", INTERNAL, self._speech.sent_text() if self.plan.events.spoken else self.answer)

    def _close(self, status: ResponseStatus, details: Json | None, text: str) -> None:
        if self.response.ended:
            return
        report = self.plan.report(self, status) if self.response.phase is ResponsePhase.OPEN else None
        self.response.close(
            ResponseEnd(
                status, details=details, text=text, audio_ms=self.audio_ms, usage=self.generation.usage, report=report
            )
        )


def _speech_settings(settings: Settings, plan: ReplyPlan) -> SpeechOutputSettings:
    return SpeechOutputSettings(
        lead_s=settings.conversation.playout_lead_ms / 1000,
        attempt_s=settings.tts.call_timeout_s,
        give_up_s=settings.conversation.give_up_after_s,
        voice=plan.terms.voice,
        speed=plan.terms.speed,
    )


def _first_exception(group: ExceptionGroup[Exception]) -> Exception:
    fault = group.exceptions[0]
    return _first_exception(fault) if isinstance(fault, ExceptionGroup) else fault
