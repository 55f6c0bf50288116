"""The replies of one session: which is current, what each answers, and the transcripts they wait for."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from actors.hearing import Hearing
from actors.reply import Reply, ReplyPlan
from actors.response import Phase
from actors.retry import Trouble
from actors.services import Services
from rejoinder.core import context
from rejoinder.core.audio import STT_RATE
from rejoinder.core.context import Message
from rejoinder.core.errors import BackendError
from rejoinder.core.latency import Marks, Stage, Waterfall, waterfall
from rejoinder.core.turns import CommitTurn
from rejoinder.core.wire import server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.core.wire.items import Conversation, Item
from rejoinder.core.wire.server import ResponseStatus
from rejoinder.core.wire.session import SessionConfig

logger = logging.getLogger(__name__)

# Cut replies whose heard text a client may still ask to correct by conversation.item.truncate.
REMEMBERED = 16
# Responses outside the conversation that may run beside the current one.
MAX_PARALLEL = 4

Prompt = Callable[[], Awaitable[tuple[Message, ...] | None]]


class Talk(Protocol):
    """The session as its replies see it."""

    id: str
    conversation: Conversation
    config: SessionConfig
    stamp: server.Stamp

    def emit(self, event: Json) -> None: ...
    def reply_ended(self, reply: Reply) -> None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a response.create asks beyond the session's own configuration; `prompt` replaces the conversation."""

    spoken: bool
    instructions: str
    max_tokens: int
    metadata: Json | None = None
    prompt: tuple[Message, ...] | None = None
    aside: bool = False
    format: AudioFormat = AudioFormat.PCM


@dataclass(frozen=True, slots=True)
class Turn:
    """A committed turn: its item, what is being heard of it, its marks, and when its last speech arrived."""

    turn: CommitTurn
    item: Item
    hearing: Hearing
    marks: Marks
    began: float


class Replies:
    """Not thread-safe; its tasks live in the session's group."""

    def __init__(self, talk: Talk, services: Services, group: asyncio.TaskGroup) -> None:
        self.current: Reply | None = None
        self.conversation = talk.conversation
        self._talk = talk
        self._services = services
        self._group = group
        self._unanswered: Turn | None = None
        self._pending: set[asyncio.Task[None]] = set()
        self._running: dict[Reply, asyncio.Task[None]] = {}
        self._known: OrderedDict[str, Reply] = OrderedDict()
        self._spoken = False

    # -- transcripts -----------------------------------------------------------------------------------------------

    def expect(self, turn: Turn) -> None:
        """A turn was committed; its transcript is on the way."""
        self._unanswered = turn
        task = self._group.create_task(self._transcribed(turn))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _transcribed(self, turn: Turn) -> None:
        wanted = self._talk.config.transcription is not None
        try:
            transcript = await asyncio.shield(turn.hearing.transcript)
        except BackendError as fault:
            self._services.metrics.error("backend", "stt")
            if wanted:
                self._talk.emit(server.transcription_failed(turn.item.id, str(fault)))
            return
        self.conversation.update(replace(turn.item, text=transcript.text))
        self._services.journal.write("heard", {"item": turn.item.id, "text": transcript.text})
        if wanted:
            self._talk.emit(server.transcription_completed(turn.item.id, transcript.text, turn.hearing.seconds))

    # -- starting and ending ---------------------------------------------------------------------------------------

    def start(self, order: Order | None = None) -> None:
        """Answer what was committed last; `order`: because the client asked for it, so it hears of it at once."""
        turn: Turn | None = None
        wanted = order or self.standing_order()
        if not wanted.aside:
            turn, self._unanswered = self._unanswered, None
        trouble = turn.hearing.trouble if turn else Trouble(self._services.metrics)
        prompt = partial(self._prompt, turn, wanted, asked=order is not None)
        reply = Reply(self._plan(wanted, prompt, trouble, turn), self._services, self, turn.marks if turn else Marks())
        if turn:
            turn.marks.end(Stage.ENDPOINT, self._services.clock())
        behind = None
        if not wanted.aside:
            behind = self._running.get(self.current) if self.current else None
            self.current = reply
        if order:
            reply.response.open()
        self._launch(reply, behind)

    def apologise(self, trouble: Trouble) -> None:
        """Speak the apology if `trouble` lasts and nothing else is being said."""
        if self.current is not None and self.current in self._running:
            return
        plan = self._plan(self.standing_order(), partial(_until_over, trouble), trouble, None)
        self.current = Reply(plan, self._services, self, Marks())
        self._launch(self.current, behind=None)

    def cut(self, reason: str, since: float | None) -> None:
        """Silence what is being said and stop its engines; `since`: when the caller's interrupting speech arrived."""
        stop_s = None if since is None else self._services.clock() - since
        self.current = None
        for reply in [reply for reply in self._running if reply.plan.events.conversation_id is not None]:
            if stop_s is not None and reply.response.phase is not Phase.UNSEEN:
                self._services.metrics.interrupted(stop_s)
            self._stop(reply, reason, stop_s)

    def cancel(self, response_id: str | None) -> bool:
        """response.cancel: True if there was a reply to cancel, of which the client then hears the end."""
        for reply in list(self._running):
            named = reply is self.current if response_id is None else reply.plan.events.response_id == response_id
            if reply.open and named:
                reply.response.open()
                self._stop(reply, "client_cancelled")
                return True
        return False

    def heard(self, item_id: str, at_s: float) -> tuple[str, int] | None:
        """What was heard of an assistant item by `at_s`, and its audio's length in ms; None if not remembered."""
        reply = self._known.get(item_id)
        return (reply.heard(at_s), reply.audio_ms) if reply else None

    @property
    def asides(self) -> int:
        return sum(1 for reply in self._running if reply.open and reply.plan.events.conversation_id is None)

    @property
    def spoken(self) -> bool:
        """Whether the client was ever sent our voice."""
        return self._spoken or any(reply.audio_ms for reply in self._known.values())

    def _stop(self, reply: Reply, reason: str, stop_s: float | None = None) -> None:
        reply.cut(reason, stop_s)
        self._running[reply].cancel()

    def _launch(self, reply: Reply, behind: asyncio.Task[None] | None) -> None:
        task = self._running[reply] = self._group.create_task(self._run(reply, behind))
        # Not at the task's own end: one that is cancelled before its first step has none.
        task.add_done_callback(lambda _: self._ended(reply))
        self._known[reply.plan.events.item_id] = reply
        while len(self._known) > REMEMBERED:
            _, forgotten = self._known.popitem(last=False)
            self._spoken = self._spoken or forgotten.audio_ms > 0

    async def _run(self, reply: Reply, behind: asyncio.Task[None] | None) -> None:
        try:
            if behind:
                await asyncio.wait({behind})
            await reply.run()
        except Exception:  # the one boundary: a bug in a reply must not cost the caller the session
            logger.exception("reply of %s broke", self._talk.id)
            self._services.metrics.error("internal", "reply")
            reply.abandon()

    def _ended(self, reply: Reply) -> None:
        del self._running[reply]
        self._talk.reply_ended(reply)

    # -- what a reply answers --------------------------------------------------------------------------------------

    def standing_order(self) -> Order:
        """The order that the session's configuration makes; a response.create changes single fields of it."""
        config = self._talk.config
        settings = self._services.settings.conversation
        return Order(
            spoken=config.output_modality == "audio",
            instructions=config.instructions or settings.instructions,
            max_tokens=config.max_output_tokens or settings.max_reply_tokens,
            format=config.output_format,
        )

    def _plan(self, order: Order, prompt: Prompt, trouble: Trouble, turn: Turn | None) -> ReplyPlan:
        config, stamp = self._talk.config, self._talk.stamp
        events = server.ResponseEvents(
            response_id=stamp("resp"),
            item_id=stamp("item"),
            conversation_id=None if order.aside else f"conv_{self._talk.id}",
            spoken=order.spoken,
            metadata=order.metadata,
            voice=config.voice,
            format=order.format,
        )
        report = partial(self._report, turn)
        return ReplyPlan(events, prompt, report, trouble, order.max_tokens, config.speed, config.voice)

    async def _prompt(self, turn: Turn | None, order: Order, *, asked: bool) -> tuple[Message, ...] | None:
        """The prompt once every committed turn is transcribed; None if nobody said or asked for anything."""
        if order.prompt is not None:
            return context.window(order.instructions, order.prompt, len(order.prompt) or 1)
        if self._pending:
            await asyncio.wait(self._pending)
        if turn:
            transcript = await asyncio.shield(turn.hearing.transcript)
            turn.marks.end(Stage.STT, turn.hearing.transcribed_at or self._services.clock())
            if not (transcript.text or asked or self._left_open()):
                return None
        keep = self._services.settings.conversation.context_turns
        return context.window(order.instructions, self.conversation.messages(), keep)

    def _left_open(self) -> bool:
        """Whether the conversation ends with the caller: a noise that cut the answer off is no reason to keep it."""
        messages = self.conversation.messages()
        return bool(messages) and messages[-1].role == "user"

    # -- what a reply reports --------------------------------------------------------------------------------------

    def emit(self, event: Json) -> None:
        self._talk.emit(event)

    def _report(self, turn: Turn | None, reply: Reply, status: ResponseStatus) -> Json:
        """The turn's waterfall and facts, for our own clients, the metrics and the journal."""
        facts: Json = {
            "interrupted": status == "cancelled",
            "stop_ms": None if reply.stop_s is None else round(reply.stop_s * 1000, 1),
            "hedged": reply.thought.hedged,
            "llm_total_ms": reply.thought.total_ms,
            "engines": self._services.stages.engines,
        }
        if turn and reply.first_output_at is not None:
            divided = waterfall(turn.marks, turn.began, reply.first_output_at)
            facts |= _timing(turn, divided)
            if status in ("completed", "incomplete"):
                stages_s = {stage.value: seconds for stage, seconds in divided.stages_s.items()}
                raw_s = {stage.value: seconds for stage, seconds in divided.raw_s.items()}
                engines = self._services.stages.engines
                self._services.metrics.turn(divided.total_s, stages_s, raw_s=raw_s, engines=engines)
        self._services.journal.write("replied", facts | {"status": status, "text": reply.answer})
        return facts


def _timing(turn: Turn, divided: Waterfall) -> Json:
    stages = divided.as_ms()
    return {
        "item_id": turn.item.id,
        "speech_end_ms": round(turn.turn.speech_end * 1000 / STT_RATE, 1),
        "server_ms": round(divided.total_s * 1000, 1),
        "unattributed_ms": stages.pop("unattributed"),
        "stages_ms": stages,
        "raw_ms": {stage.value: round(seconds * 1000, 1) for stage, seconds in divided.raw_s.items()},
    }


async def _until_over(trouble: Trouble) -> None:
    """A reply with nothing to say but the apology: it ends when the trouble does."""
    await trouble.over()
