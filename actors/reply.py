"""One reply, from the prompt to the last sample: think, speak, deliver.

The response opens on the wire with its first words or audio (or earlier, if the client asked for it): a turn whose
transcript turns out empty leaves no trace. A draft does all of this up to its first segment's audio and then waits to
be released; until then nothing of it shows, and dropping it is cancelling its task. A stage that fails is asked again
(see `retry`, `voice`, `hedge`); if nothing is audible soon after the failure, the held apology is spoken and the answer
follows in the same response once the stage is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from actors.hedge import Thought
from actors.ports import LlmRequest
from actors.response import Channel, Ending, Phase, Response
from actors.retry import Trouble
from actors.services import Services
from actors.voice import Voice, VoiceSettings
from rejoinder.core.answer_cache import NOBODY, Asker
from rejoinder.core.context import Message
from rejoinder.core.errors import BackendError, RejoinderError
from rejoinder.core.latency import Marks, Stage
from rejoinder.core.sentences import Segmenter
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.server import ResponseEvents, ResponseStatus

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """What to answer and how. `prompt` waits for the transcript; None from it means that there is nothing to answer.

    `trouble` is the turn's: it may have begun before the reply, when the transcript's replica failed. `report` makes
    the `rejoinder` field of response.done, once, if the client saw the response.
    """

    events: ResponseEvents
    prompt: Callable[[], Awaitable[tuple[Message, ...] | None]]
    report: Callable[[Reply, ResponseStatus], Json]
    trouble: Trouble
    max_tokens: int
    session: str
    speed: float = 1.0
    voice: str = "default"
    asker: Asker = NOBODY


class Reply:
    """`run` once; `cut` at any time. Afterwards `open` is False and the conversation holds what was heard.

    One that is `drafted` emits nothing before `release`.
    """

    def __init__(
        self, plan: ReplyPlan, services: Services, channel: Channel, marks: Marks, *, drafted: bool = False
    ) -> None:
        self.plan = plan
        self.drafted = drafted
        self.marks = marks
        self.thought = Thought()
        self.response = Response(plan.events, channel)
        self.ready_at: float | None = None
        self.first_output_at: float | None = None
        self.stop_s: float | None = None
        self._services = services
        self._trouble = plan.trouble
        self._text: list[str] = []
        self._segments = 0
        self._go = asyncio.Event()
        if not drafted:
            self._go.set()
        settings = services.settings.conversation
        voice_settings = VoiceSettings(
            lead_s=settings.playout_lead_ms / 1000,
            attempt_s=services.settings.tts.call_timeout_s,
            give_up_s=settings.give_up_after_s,
            voice=plan.voice,
            speed=plan.speed,
        )
        self._voice = Voice(services.stages.tts, self, voice_settings, self._trouble, services.clock, self._go)

    @property
    def open(self) -> bool:
        """Whether the wire's response may still get events."""
        return not self.response.ended

    @property
    def answer(self) -> str:
        """The whole answer, heard or not, without apologies."""
        return "".join(self._text).strip()

    @property
    def audio_ms(self) -> int:
        """Length of the audio sent so far."""
        return self._voice.audio_ms

    def release(self, marks: Marks) -> None:
        """The turn was taken: let it out. What was noted until now goes into the turn's own `marks`."""
        marks.join(self.marks)
        self.marks = marks
        self._go.set()

    async def run(self) -> None:
        """Speak the reply to its end. Cancelling it (after `cut`, if it was released) stops every engine that works
        for it.
        """
        self._services.speculation.think()
        try:
            await self._run()
        except ExceptionGroup as group:
            await self._go.wait()
            await self._fail(_first(group))
        finally:
            if self.first_output_at is None:
                self._services.speculation.thought()
        self._services.recall.keep(self.thought, self.answer)

    @property
    def audible(self) -> bool:
        """Whether it has begun to be heard, and its end is not heard yet."""
        return self.plan.events.spoken and self.open and self.first_output_at is not None

    def pause(self, stop_s: float) -> None:
        """Silence at once, until `resume` or `cut`; the engines go on. `stop_s`: since the speech that caused it.

        An answer in writing disturbs nobody who speaks.
        """
        if self.plan.events.spoken:
            self._voice.pause()
            self.stop_s = stop_s

    def flushed(self, at_s: float) -> None:
        """The client says that it stopped playing at `at_s`: if this is paused, it goes on from there."""
        self._voice.flushed(at_s)

    def resume(self) -> None:
        """Go on behind the last sample that was heard."""
        self.stop_s = None
        self._voice.resume()

    def cut(self, reason: str, stop_s: float | None = None) -> None:
        """Silence at once: nothing of this reply is sent after this call. `stop_s`: since the speech that cut it."""
        heard = self._voice.silence() if self.plan.events.spoken else self.answer
        if self.open:
            self.stop_s = stop_s
            self._close("cancelled", {"type": "cancelled", "reason": reason}, heard)
        else:
            self.response.remember(heard, self.audio_ms, complete=False)

    def heard(self, at_s: float) -> str:
        """The words of the answer that a client has heard who stopped at `at_s`."""
        return self._voice.heard(self._voice.where(at_s))

    def saying(self, before_s: float, behind_s: float) -> tuple[str, float]:
        """The words around the listener's position, and how much is still to be heard (infinite: not known yet)."""
        return self._voice.newest(before_s, behind_s), self._voice.left_s

    # -- what the voice reports ------------------------------------------------------------------------------------

    def synthesis_started(self) -> None:
        self.marks.start(Stage.TTS_FIRST_AUDIO, self._services.clock())

    def first_audio_ready(self) -> None:
        now = self._services.clock()
        self.ready_at = self.ready_at or now
        self.marks.end(Stage.TTS_FIRST_AUDIO, now)
        self.marks.start(Stage.DELIVERY, now)

    def speaking(self, text: str) -> None:
        self.response.words(text if self._segments == 0 else f" {text}")
        self._segments += 1

    def audio(self, pcm: bytes, *, answers: bool) -> None:
        self.response.audio(pcm)
        if answers:
            self._delivered()

    def _delivered(self) -> None:
        if self.first_output_at is None:
            self.first_output_at = self._services.clock()
            self._services.speculation.thought()
            self.marks.end(Stage.DELIVERY, self.first_output_at)

    # -- the work --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._apologise())
            speaking = group.create_task(self._voice.run()) if self.plan.events.spoken else None
            thought = await self._think()
            await self._voice.finish()
            if speaking:
                await speaking
            watch.cancel()
        if thought:
            self.response.open()
        if self.thought.finish == "length":
            self._close("incomplete", {"type": "incomplete", "reason": "max_output_tokens"}, self.answer)
        else:
            self._close("completed", None, self.answer)

    async def _think(self) -> bool:
        """Ask the language model and hand on what it says; False if there was nothing to answer."""
        prompt = await self.plan.prompt()
        if prompt is None:
            return False
        settings = self._services.settings.conversation
        request = LlmRequest(prompt, self.plan.max_tokens, settings.temperature, session=self.plan.session)
        segmenter = Segmenter(settings.first_segment_words, settings.segment_words)
        self.marks.start(Stage.LLM_FIRST_TOKEN, self._services.clock())
        ask = partial(self._services.hedger.stream, request, self._trouble, self.thought, settings.give_up_after_s)
        async with aclosing(self._services.recall.stream(request, self.plan.asker, self.thought, ask)) as deltas:
            async for delta in deltas:
                if not self._text:
                    self._first_token()
                self._text.append(delta.text)
                await self._take(delta.text, segmenter.push(delta.text))
        await self._take("", segmenter.flush())
        return True

    def _first_token(self) -> None:
        now = self._services.clock()
        self.marks.end(Stage.LLM_FIRST_TOKEN, now)
        self.marks.start(Stage.FIRST_SEGMENT, now)

    async def _take(self, text: str, segments: list[str]) -> None:
        if not self.plan.events.spoken:
            self.response.words(text)
            if text:
                self._delivered()
            return
        for segment in segments:
            self.marks.end(Stage.FIRST_SEGMENT, self._services.clock())
            await self._voice.say(segment)

    async def _apologise(self) -> None:
        """Once a reply: if a stage fails and the listener hears nothing for a while, say so."""
        if not self.plan.events.spoken:
            return
        await self._go.wait()
        while True:
            await self._trouble.wait()
            await asyncio.sleep(self._services.settings.conversation.apology_after_ms / 1000)
            if self._trouble.active and self._voice.dry():
                self.thought.question = None  # an answer behind an apology is not said again
                self._voice.play(self._services.apology)
                return

    # -- its end ---------------------------------------------------------------------------------------------------

    async def _fail(self, fault: Exception) -> None:
        """Say that it failed, with no engine at all; what was said until then stays in the conversation."""
        stage = (fault.stage if isinstance(fault, BackendError) else "") or "reply"
        known = isinstance(fault, RejoinderError)
        logger.error("reply failed: %s", fault, exc_info=None if known else fault)
        self._services.metrics.error("backend" if known else "internal", stage)
        self.thought.question = None
        if self.plan.events.spoken:
            await self._voice.say_last(self._services.apology)
        self.response.open()
        details = _failure(f"{stage}_unavailable", str(fault)) if known else INTERNAL
        self._close("failed", details, self._voice.said() if self.plan.events.spoken else self.answer)

    def abandon(self) -> None:
        """End the response where it stands, after a bug of our own."""
        self._close("failed", INTERNAL, self._voice.said() if self.plan.events.spoken else self.answer)

    def _close(self, status: ResponseStatus, details: Json | None, text: str) -> None:
        if self.response.ended:
            return
        report = self.plan.report(self, status) if self.response.phase is Phase.OPEN else None
        self.response.close(Ending(status, details, text, self.audio_ms, self.thought.usage, report))


def _failure(code: str, message: str) -> Json:
    return {"type": "failed", "error": {"type": "server_error", "code": code, "message": message}}


INTERNAL = _failure("internal_error", "The reply failed for an internal reason; the session goes on.")


def _first(group: ExceptionGroup[Exception]) -> Exception:
    fault = group.exceptions[0]
    return _first(fault) if isinstance(fault, ExceptionGroup) else fault
