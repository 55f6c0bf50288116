"""One conversation: a mailbox, the turn machine, and the tasks that carry out what it decides.

The loop takes one event, asks `rejoinder.core.turns.step` what it means, and performs the commands. Nothing else in
this class decides anything about turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from actors.clerk import Clerk
from actors.ear import Ear
from actors.hearing import Hearing, Listening
from actors.mailbox import Mailbox
from actors.replies import Order, Replies, Turn
from actors.reply import Reply
from actors.retry import Trouble
from actors.services import Services
from rejoinder.core import turns
from rejoinder.core.audio import STT_RATE
from rejoinder.core.config import SpeechSettings
from rejoinder.core.endpointing import DetectionMode
from rejoinder.core.errors import BackendError, CallerError, Overloaded
from rejoinder.core.latency import Marks, Stage
from rejoinder.core.speech import SpeechEvent
from rejoinder.core.turns import Agent, Caller, Command, TurnEvent, TurnRules, TurnState
from rejoinder.core.wire import client, server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.items import Conversation, Item
from rejoinder.core.wire.session import SessionConfig

# One voice activity window: no silence can be known sooner.
WINDOW_MS = 32


def _ms(samples: int) -> int:
    return round(samples * 1000 / STT_RATE)


class Session:
    """`run` until cancelled; `hear` takes the caller's audio, `submit` the client's events, both on the same loop."""

    def __init__(
        self,
        key: str,
        services: Services,
        send: Callable[[Json], None],
        config: SessionConfig,
        wake_ticker: Callable[[], None],
    ) -> None:
        self.id = f"sess_{key}"
        self.conversation = Conversation()
        self.config = config
        self.stamp = server.Stamp(key)
        self.state = TurnState()
        self._services = services
        self._send = send
        self._wake_ticker = wake_ticker
        self._ready = asyncio.Event()
        self._ear = Ear(self._speech_settings(), services.settings.host.audio_ring_s)
        self._mailbox: Mailbox[TurnEvent, tuple[client.ClientEvent, int]] = Mailbox()
        self._clerk = Clerk(self, services)
        self._utterance_item = ""
        self._trouble = Trouble(services.metrics)
        self._hearing: Hearing | None = None
        self._order: Order | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- the transport's side ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled; cancelling stops every task and engine call of this session."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._listening = Listening(self._services.stages, self._services.settings, self._services.clock, group)
            self.replies = Replies(self, self._services, group)
            self._clerk.greet()
            self._ready.set()
            try:
                while True:
                    self._take(await self._mailbox.get())
            finally:
                if self._timer:
                    self._timer.cancel()

    async def ready(self) -> None:
        """Until the session has greeted and takes audio and events."""
        await self._ready.wait()

    def hear(self, pcm: bytes) -> None:
        """Take 16 kHz PCM of any length."""
        self._ear.append(pcm, self._services.clock())
        if self.config.detection.mode is DetectionMode.NONE:
            self._ear.skip()
        self._wake_ticker()

    async def submit(self, event: client.ClientEvent) -> None:
        """Take a client event; waits while the mailbox is full. Audio received until now comes before it."""
        await self._mailbox.submit((event, self._ear.received))

    def reject(self, fault: CallerError, client_event_id: str | None) -> None:
        """Answer a client event that could not be taken; the session goes on."""
        self._services.metrics.error("caller", "wire")
        self.emit(server.error(fault, client_event_id))

    def emit(self, event: Json) -> None:
        """Send a server event, stamped with its id."""
        self._send({"event_id": self.stamp("event"), **event})

    # -- the ticker's side -------------------------------------------------------------------------------------------

    @property
    def ear(self) -> Ear:
        return self._ear

    def speech(self, events: tuple[SpeechEvent, ...]) -> None:
        """The ticker decided a window."""
        for event in events:
            self._mailbox.post(event)
        if self.state.caller is Caller.SETTLING:
            self._mailbox.post(turns.AudioHeard(self._ear.processed, self._ear.backlog))
        limit = self._services.settings.speech.max_utterance_s * STT_RATE
        if self.state.caller is Caller.SPEAKING and self._ear.processed - self.state.start > limit:
            self._mailbox.post(turns.CommitRequested(self._ear.processed))

    def vad_failed(self, fault: BackendError | Overloaded | TimeoutError) -> None:
        """Voice activity cannot be decided: if somebody may be speaking, apologise until it can."""
        self._trouble.failed("vad", fault)
        if self.state.caller is not Caller.QUIET or self._ear.backlog_audible():
            self.replies.apologise(self._trouble)

    def vad_recovered(self) -> None:
        self._trouble.recovered("vad")

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _take(self, event: TurnEvent | tuple[client.ClientEvent, int]) -> None:
        if not isinstance(event, tuple):
            self.step(event)
            return
        request, received = event
        try:
            self._clerk.answer(request, received)
        except CallerError as fault:
            self.reject(fault, request.event_id)

    def step(self, event: TurnEvent) -> None:
        """Let the turn machine decide about one event, and do as it says."""
        rules = TurnRules(self.config.detection, self._services.settings.endpointing)
        self.state, commands = turns.step(self.state, event, rules, self._services.clock())
        for command in commands:
            self._perform(command)

    def _perform(self, command: Command) -> None:
        match command:
            case turns.AnnounceSpeech(start):
                self._utterance_item = self.stamp("item")
                padding = round(self._ear.settings.prefix_padding_ms * STT_RATE / 1000)
                self.emit(server.speech_started(self._utterance_item, _ms(max(0, start - padding))))
            case turns.Hear(revision, start, end, judge):
                self._hear(revision, start, end, judge)
            case turns.Forget():
                self._forget()
            case turns.WaitUntil(revision, at):
                self._wait(revision, at)
            case turns.CommitTurn():
                self._commit(command)
            case turns.StartReply(revision):
                order, self._order = self._order, None
                self.replies.start(revision, order)
            case turns.CancelReply(reason):
                began = self._ear.arrival(self.state.start)
                self.replies.cut(reason, began)

    def _hear(self, revision: int, start: int, end: int, judge: bool) -> None:
        padding = round(self._ear.settings.prefix_padding_ms * STT_RATE / 1000)
        pcm = self._ear.pcm(start - padding, end)
        judged = partial(self._judged, revision) if judge else None
        self._hearing = self._listening.start(revision, pcm, Trouble(self._services.metrics), judged)

    def _judged(self, revision: int, probability: float | None) -> None:
        self._mailbox.post(turns.Verdict(revision, probability, self._ear.processed))

    def _forget(self) -> None:
        if self._hearing:
            self._hearing.forget()
            self._hearing = None

    def _wait(self, revision: int, at: float) -> None:
        if self._timer:
            self._timer.cancel()
        delay = max(0.0, at - self._services.clock())
        self._timer = asyncio.get_running_loop().call_later(delay, self._wait_over, revision)

    def _wait_over(self, revision: int) -> None:
        self._mailbox.post(turns.WaitOver(revision, self._ear.backlog))

    def _commit(self, turn: turns.CommitTurn) -> None:
        automatic = self.config.detection.mode is not DetectionMode.NONE
        item_id = self._utterance_item or self.stamp("item")
        self._utterance_item = ""
        if not turn.heard:
            self._forget()
            self._hear(turn.revision, turn.start, turn.end, judge=False)
        assert self._hearing is not None  # the machine asks for Hear before it says that a turn was heard
        hearing, self._hearing = self._hearing, None
        self._ear.turn_committed()
        item = Item(item_id, role="user", spoken=True, text=None)
        previous = self.conversation.insert(item)
        if automatic:
            self.emit(server.speech_stopped(item_id, _ms(turn.end)))
        self.emit(server.committed(item_id, previous))
        self.emit(server.item_event("added", item, previous))
        self.emit(server.item_event("done", item, previous))
        began = self._ear.arrival(turn.speech_end) or hearing.began
        self.replies.expect(Turn(turn, item, hearing, self._turn_marks(began, hearing), began))

    def _turn_marks(self, began: float, hearing: Hearing) -> Marks:
        now = self._services.clock()
        marks = Marks()
        marks.start(Stage.SILENCE, began)
        marks.end(Stage.SILENCE, hearing.began)
        marks.start(Stage.ENDPOINT, hearing.began)
        marks.end(Stage.ENDPOINT, now)
        marks.start(Stage.STT, hearing.began)
        return marks

    def configured(self) -> None:
        """The configuration changed: hear by it from the next window on."""
        self._ear.settings = self._speech_settings()

    @property
    def busy(self) -> bool:
        """Whether a response of the conversation is open on the wire."""
        return self.replies.current is not None and self.replies.current.open

    def request_reply(self, order: Order) -> None:
        """response.create: the machine starts it; `order` says what it changes."""
        self._order = order
        self.step(turns.ReplyRequested())

    def reply_ended(self, reply: Reply) -> None:
        """The reply's audio was heard to its end, or it failed."""
        if reply is self.replies.current and self.state.agent is not Agent.IDLE:
            self._mailbox.post(turns.ReplyEnded())

    def _speech_settings(self) -> SpeechSettings:
        """The operator's hysteresis; server_vad brings its own threshold and padding, and keeps its silence
        exactly.
        """
        settings = self._services.settings.speech
        detection = self.config.detection
        if detection.mode is not DetectionMode.SERVER_VAD:
            return settings
        gap = settings.threshold - settings.release_threshold
        return settings.model_copy(
            update={
                "threshold": detection.threshold,
                "release_threshold": max(0.0, detection.threshold - gap),
                "prefix_padding_ms": detection.prefix_padding_ms,
                "soft_end_ms": min(settings.soft_end_ms, max(detection.silence_duration_ms, WINDOW_MS)),
            }
        )
