"""One conversation: a mailbox, the turn machine, and the tasks that carry out what it decides.

The loop takes one event, asks `rejoinder.core.turns.step` what it means, and performs the commands. Nothing else in
this class decides anything about turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from actors.clerk import Clerk
from actors.ear import Ear, speech_settings
from actors.hearing import Listening
from actors.mailbox import Mailbox
from actors.orders import Order
from actors.partials import Partials
from actors.replies import Replies
from actors.reply import Reply
from actors.retry import Trouble
from actors.services import Services
from actors.utterance import Utterance
from rejoinder.core import turn_commands as commands
from rejoinder.core import turns
from rejoinder.core.endpointing import DetectionMode
from rejoinder.core.errors import CallerError
from rejoinder.core.speech import SoftEnd, SpeechEvent
from rejoinder.core.turn_commands import Command
from rejoinder.core.turns import Agent, Caller, TurnEvent, TurnRules, TurnState, Verdict
from rejoinder.core.wire import client, server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.items import Conversation
from rejoinder.core.wire.session import SessionConfig

logger = logging.getLogger(__name__)


class Session:
    """`run` until cancelled; `hear` takes the caller's audio, `submit` the client's events, both on the same loop."""

    def __init__(
        self,
        key: str,
        services: Services,
        send: Callable[[Json], None],
        config: SessionConfig,
        wake_ticker: Callable[[], None],
        tenant: str = "",
    ) -> None:
        self.id = f"sess_{key}"
        self.tenant = tenant
        self.conversation = Conversation()
        self.config = config
        self.stamp = server.Stamp(key)
        self.state = TurnState()
        self._services = services
        self._send = send
        self._wake_ticker = wake_ticker
        self._ready = asyncio.Event()
        self._ear = Ear(
            speech_settings(services.settings.speech, config.detection), services.settings.host.audio_ring_s
        )
        self._mailbox: Mailbox[TurnEvent, tuple[client.ClientEvent, int]] = Mailbox()
        self._clerk = Clerk(self, services)
        self._trouble = Trouble(services.metrics)
        self._order: Order | None = None
        self._timer: asyncio.TimerHandle | None = None
        # The revision whose required silence passed while audio still waited for its decision.
        self._overdue: int | None = None

    # -- the transport's side ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled; cancelling stops every task and engine call of this session."""
        async with asyncio.TaskGroup() as group:
            self.replies = Replies(self, self._services, group)
            partials = Partials(self._services, self._ear, group, self.replies.read_ahead)
            self._utterance = Utterance(self, self._ear, Listening(self._services, group), partials)
            self._clerk.greet()
            self.replies.read_ahead()
            self._ready.set()
            try:
                while True:
                    self._take(await self._mailbox.get())
            finally:
                if self._timer:
                    self._timer.cancel()
                self._ear.release()

    async def ready(self) -> None:
        """Until the session has greeted and takes audio and events."""
        await self._ready.wait()

    def hear(self, pcm: bytes) -> None:
        """Take 16 kHz PCM of any length."""
        self._ear.append(pcm, self._services.clock())
        if self.config.detection.mode is DetectionMode.NONE:
            self._ear.skip()
            if self._overdue is not None:
                self._wait_over(self._overdue)
        self._wake_ticker()

    async def submit(self, event: client.ClientEvent) -> None:
        """Take a client event; waits while the mailbox is full. Audio received until now comes before it."""
        await self._mailbox.submit((event, self._ear.received))

    async def configure(self, event: client.UpdateSession) -> None:
        """Take a session.update, and wait until it was answered: how the audio behind it is read depends on it."""
        await self.submit(event)
        await self._mailbox.answered()

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
        if self._ear.in_speech:
            self._mailbox.post(turns.AudioHeard(self._ear.processed))
        if self._overdue is not None:
            self._wait_over(self._overdue)

    def vad_failed(self) -> None:
        """Voice activity cannot be decided: if somebody may be speaking, apologise until it can."""
        self._trouble.away("vad")
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
        except Exception:  # a bug that a client found must not cost it the session
            logger.exception("a %s could not be answered", type(request).__name__)
            self._services.metrics.error("internal", "wire")
            self.emit(server.server_error("internal_error", "This event could not be answered.", request.event_id))

    def step(self, event: TurnEvent) -> None:
        """Let the turn machine decide about one event, and do as it says."""
        settings = self._services.settings
        rules = TurnRules(
            self.config.detection,
            settings.endpointing,
            settings.speech.max_utterance_s,
            drafts=settings.speculation.enabled and self.config.output_modality == "audio",
        )
        self.state, wanted = turns.step(self.state, event, rules, self._when(event))
        for command in wanted:
            self._perform(command)

    def _when(self, event: TurnEvent) -> float:
        """The instant an event speaks of: what was decided about audio counts from its arrival, not from its tick."""
        arrived = None
        if isinstance(event, SoftEnd):
            arrived = self._ear.arrival(event.at)
        elif isinstance(event, Verdict):
            arrived = self._ear.arrival(event.processed)
        return self._services.clock() if arrived is None else arrived

    def _perform(self, command: Command) -> None:
        match command:
            case commands.AnnounceSpeech(start):
                self._utterance.announce(start)
            case commands.Hear(revision, start, end, judge):
                self._utterance.hear(start, end, partial(self._judged, revision) if judge else None)
            case commands.Draft(revision):
                self.replies.draft(revision, self._utterance.hearing)
            case commands.Discard():
                self.replies.discard()
            case commands.Forget():
                self.replies.discard()
                self._utterance.forget()
            case commands.WaitUntil(revision, at):
                self._wake_at(at, partial(self._wait_over, revision))
            case commands.CommitTurn():
                self.replies.expect(self._utterance.commit(command))
            case commands.WatchSilence(revision, at):
                quiet = self._ear.received
                self._wake_at(at, lambda: self._mailbox.post(turns.NobodySpoke(revision, quiet, self._ear.received)))
            case commands.CommitSilence(start, end):
                self._utterance.commit_silence(start, end)
            case commands.StartReply(draft):
                order, self._order = self._order, None
                self.replies.start(order, draft)
            case commands.CancelReply(reason):
                self.replies.cut(reason, self._ear.arrival(self.state.start + 1))

    def _judged(self, revision: int, probability: float | None) -> None:
        self._mailbox.post(turns.Verdict(revision, probability, self._ear.processed))

    def _wait_over(self, revision: int) -> None:
        """The required silence has passed, if what is still undecided says so too: the next tick will tell."""
        self._overdue = revision if self._ear.backlog else None
        if self._overdue is None:
            self._mailbox.post(turns.WaitOver(revision))

    def _wake_at(self, at: float, act: Callable[[], None]) -> None:
        """Do something at a monotonic time; the machine waits for one thing at a time."""
        if self._timer:
            self._timer.cancel()
        delay = max(0.0, at - self._services.clock())
        self._timer = asyncio.get_running_loop().call_later(delay, act)

    # -- the clerk's side --------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a response of the conversation is open on the wire."""
        return self.replies.current is not None and self.replies.current.open

    def configured(self) -> None:
        """The configuration changed: hear by it from the next window on."""
        self._ear.settings = speech_settings(self._services.settings.speech, self.config.detection)
        self.replies.read_ahead()

    def clear(self, end: int) -> None:
        """Drop the caller's audio before sample `end` that is not committed yet."""
        self.step(turns.ClearRequested(end))
        self._utterance.drop(end)

    def request_reply(self, order: Order) -> None:
        """response.create: the machine starts it; `order` says what it changes."""
        self._order = order
        self.step(turns.ReplyRequested())

    # -- the replies' side -------------------------------------------------------------------------------------------

    def reply_ended(self, reply: Reply) -> None:
        """The reply's audio was heard to its end, or it failed."""
        if reply is self.replies.current and self.state.agent is not Agent.IDLE:
            self._mailbox.post(turns.ReplyEnded())
