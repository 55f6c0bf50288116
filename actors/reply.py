"""One reply, from the prompt to the last sample: think, speak, deliver, and the events that tell the client.

The response opens on the wire with its first words or audio, never before: a turn whose transcript turns out empty
leaves no trace. A stage that fails is asked again (see `retry`, `voice`, `hedge`); if nothing is audible soon after
the failure, the held apology is spoken and the answer follows in the same response once the stage is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from actors.hedge import Thought
from actors.ports import LlmRequest, Usage
from actors.retry import Trouble
from actors.services import Services
from actors.voice import Clip, Voice, VoiceSettings
from rejoinder.core.context import Message
from rejoinder.core.errors import BackendError, RejoinderError
from rejoinder.core.latency import Marks, Stage
from rejoinder.core.sentences import Segmenter
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.items import Conversation, Item
from rejoinder.core.wire.server import ResponseEvents, ResponseStatus, usage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """What to answer and how. `prompt` waits for the transcript; None from it means that there is nothing to answer.

    `trouble` is the turn's: it may have begun before the reply, when the transcript's replica failed.
    """

    events: ResponseEvents
    prompt: Callable[[], Awaitable[tuple[Message, ...] | None]]
    trouble: Trouble
    max_tokens: int
    speed: float = 1.0
    voice: str = "default"


class Channel(Protocol):
    """The session as the reply sees it."""

    conversation: Conversation

    def emit(self, event: Json) -> None: ...

    def report(self, reply: Reply) -> Json | None:
        """The `rejoinder` field of response.done, once per reply, when it closes."""
        ...


class Reply:
    """`run` once; `cut` at any time. Afterwards `open` is False and the conversation holds what was heard."""

    def __init__(self, plan: ReplyPlan, services: Services, channel: Channel, marks: Marks) -> None:
        self.plan = plan
        self.marks = marks
        self.thought = Thought()
        self.status: ResponseStatus | None = None
        self.first_output_at: float | None = None
        self._services = services
        self._channel = channel
        self._trouble = plan.trouble
        self._text: list[str] = []
        self._begun = False
        self._said: list[str] = []
        settings = services.settings.conversation
        voice_settings = VoiceSettings(
            lead_s=settings.playout_lead_ms / 1000,
            attempt_s=services.settings.tts.call_timeout_s,
            give_up_s=settings.give_up_after_s,
            voice=plan.voice,
            speed=plan.speed,
        )
        self._voice = Voice(services.stages.tts, self, voice_settings, self._trouble, services.clock)

    @property
    def open(self) -> bool:
        """Whether the wire's response may still get events."""
        return self.status is None

    @property
    def answer(self) -> str:
        """The whole answer, heard or not, without apologies."""
        return "".join(self._text).strip()

    async def run(self) -> None:
        """Speak the reply to its end. Cancelling it (after `cut`) stops every engine that works for it."""
        try:
            await self._run()
        except BaseExceptionGroup as group:
            fault = _first(group)
            if not isinstance(fault, RejoinderError):
                raise
            await self._fail(fault)
        if self.plan.events.spoken:
            await self._voice.played_out()

    def cut(self, reason: str) -> None:
        """Silence at once: nothing of this reply is sent after this call."""
        heard = self._voice.silence() if self.plan.events.spoken else self.answer
        if self.open:
            self._close("cancelled", {"type": "cancelled", "reason": reason}, heard)
        else:
            self._remember(heard, "incomplete")

    def heard(self, at_s: float) -> str:
        """The words of the answer within the first `at_s` seconds of its audio."""
        return self._voice.heard(at_s)

    @property
    def audio_ms(self) -> int:
        return self._voice.audio_ms

    # -- what the voice reports ------------------------------------------------------------------------------------

    def synthesis_started(self) -> None:
        self.marks.start(Stage.TTS_FIRST_AUDIO, self._services.clock())

    def first_audio_ready(self) -> None:
        now = self._services.clock()
        self.marks.end(Stage.TTS_FIRST_AUDIO, now)
        self.marks.start(Stage.DELIVERY, now)

    def speaking(self, text: str) -> None:
        if self.open:
            self._begin()
            self._said.append(text)
            self._channel.emit(self.plan.events.text_delta(text if len(self._said) == 1 else " " + text))

    def audio(self, pcm: bytes) -> None:
        if self.open:
            self._channel.emit(self.plan.events.audio_delta(pcm))
            self._delivered()

    def _delivered(self) -> None:
        if self.first_output_at is None:
            self.first_output_at = self._services.clock()
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
        if thought and self.open:
            self._begin()
            length = self.thought.finish == "length"
            details: Json | None = {"type": "incomplete", "reason": "max_output_tokens"} if length else None
            self._close("incomplete" if length else "completed", details, self.answer)
        elif self.open:  # nothing was said to us, so nothing is said but an apology that had begun
            self._close("completed", None, "")

    async def _think(self) -> bool:
        prompt = await self.plan.prompt()
        if prompt is None:
            return False
        settings = self._services.settings.conversation
        request = LlmRequest(prompt, self.plan.max_tokens, settings.temperature)
        segmenter = Segmenter(settings.first_segment_words, settings.segment_words)
        self.marks.start(Stage.LLM_FIRST_TOKEN, self._services.clock())
        async with aclosing(
            self._services.hedger.stream(request, self._trouble, self.thought, settings.give_up_after_s)
        ) as deltas:
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
            if text and self.open:
                self._begin()
                self._channel.emit(self.plan.events.text_delta(text))
                self._delivered()
            return
        for segment in segments:
            self.marks.end(Stage.FIRST_SEGMENT, self._services.clock())
            await self._voice.say(segment)

    async def _apologise(self) -> None:
        """Once a reply: if a stage fails and the listener hears nothing for a while, say so."""
        if not self.plan.events.spoken:
            return
        while True:
            await self._trouble.wait()
            await asyncio.sleep(self._services.settings.conversation.apology_after_ms / 1000)
            if self._trouble.active and self._voice.dry():
                self._voice.play(self._services.apology)
                return

    async def _fail(self, fault: RejoinderError) -> None:
        stage = fault.stage if isinstance(fault, BackendError) else "reply"
        logger.error("reply failed: %s", fault)
        self._services.metrics.error("backend", stage)
        if self.plan.events.spoken and self.open:
            await self._say_last(self._services.apology)
        if self.open:
            self._begin()
            error = {"type": "server_error", "code": f"{stage}_unavailable", "message": str(fault)}
            self._close("failed", {"type": "failed", "error": error}, self.answer)

    async def _say_last(self, clip: Clip) -> None:
        """Speak a clip with no engine at all."""
        self.speaking(clip.text)
        self.audio(clip.pcm)
        await asyncio.sleep(0)

    # -- the wire --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        events, emit = self.plan.events, self._channel.emit
        item = Item(events.item_id, role="assistant", spoken=events.spoken, status="in_progress")
        emit(events.created())
        emit(events.output_item("added", item))
        if events.conversation_id is not None:
            previous = self._channel.conversation.insert(item)
            emit({"type": "conversation.item.added", "item": item.wire(), "previous_item_id": previous})
        emit(events.part("added", ""))

    def _close(self, status: ResponseStatus, details: Json | None, text: str) -> None:
        self.status = status
        if not self._begun:
            return  # cut before its first word: the client never heard of it
        events, emit = self.plan.events, self._channel.emit
        item_status = "completed" if status == "completed" else "incomplete"
        shown = " ".join(self._said) if events.spoken else text
        for event in events.content_done(shown):
            emit(event)
        item = self._remember(text, item_status)
        if events.conversation_id is not None and item.id in self._channel.conversation:
            previous = self._channel.conversation.predecessor(item.id)
            emit({"type": "conversation.item.done", "item": item.wire(), "previous_item_id": previous})
        emit(events.output_item("done", item))
        used = self.thought.usage or Usage(0, 0)
        done = events.done(status, details, item, usage(used.prompt_tokens, used.completion_tokens, used.cached_tokens))
        report = self._channel.report(self)
        emit(done | ({"rejoinder": report} if report else {}))

    def _remember(self, text: str, status: str) -> Item:
        events = self.plan.events
        item = Item(events.item_id, role="assistant", spoken=events.spoken, text=text, audio_ms=self.audio_ms)
        item = replace(item, status="completed" if status == "completed" else "incomplete")
        self._channel.conversation.update(item)
        return item


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    fault = group.exceptions[0]
    return _first(fault) if isinstance(fault, BaseExceptionGroup) else fault
