"""One conversation: a mailbox, the turn machine, and the tasks that carry out what it decides.

The loop takes one event, asks `rejoinder.core.turns.machine.step` what it means, and performs the commands. Nothing
else in
this class decides anything about turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from actors.client_events import ClientEventHandler
from actors.listening.audio_input import AudioInput, speech_settings
from actors.listening.end_of_turn import EndOfTurn
from actors.listening.interim_transcripts import InterimTranscripts
from actors.mailbox import Mailbox
from actors.replying.replies import Replies
from actors.replying.reply import Reply
from actors.replying.requests import ReplyRequest
from actors.stages.retry import StageFailures, contained
from actors.stages.services import Services
from actors.stages.session_context import SessionContext
from actors.turn_taking.barge_in import BargeInDetector
from actors.turn_taking.command_executor import CommandExecutor
from actors.turn_taking.utterance import CallerUtterance
from rejoinder.core.errors import CallerError
from rejoinder.core.turns import events as turn_events
from rejoinder.core.turns import machine as turns
from rejoinder.core.turns.endpointing import DetectionMode
from rejoinder.core.turns.events import TurnEvent, VerdictReady
from rejoinder.core.turns.speech_detector import SoftEnd, SpeechEvent
from rejoinder.core.turns.state import AgentState, CallerState, TurnState
from rejoinder.core.wire import client, server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.items import Conversation
from rejoinder.core.wire.session import SessionConfig


class Session:
    """A live conversation; `open` makes one.

    `hear` takes the caller's audio, `submit` the client's events, both on the session's event loop.
    """

    def __init__(self, context: SessionContext, group: asyncio.TaskGroup, wake_ticker: Callable[[], None]) -> None:
        """Build the session; `group` owns its tasks, `wake_ticker` says that audio waits for its decision."""
        services = context.services
        self.context = context
        self.state = TurnState()
        self.replies = Replies(context, group, self._reply_ended)
        self._services = services
        self._wake_ticker = wake_ticker
        suppressor = services.stages.suppressor() if services.stages.suppressor else None
        speech = speech_settings(services.settings.speech, context.config.detection)
        self._ear = AudioInput(speech, services.settings.host.audio_ring_s, suppressor)
        self._mailbox: Mailbox[TurnEvent, tuple[client.ClientEvent, int]] = Mailbox()
        self._clerk = ClientEventHandler(self, context)
        self._trouble = StageFailures(services.metrics)
        self._greeting = services.settings.conversation.greeting
        self._attention = BargeInDetector(
            context, self._ear, self.replies, state=lambda: self.state, post=self._mailbox.post
        )
        self._partials = InterimTranscripts(
            services, ear=self._ear, group=group, reader=self.replies, judge=self._attention
        )
        self._utterance = CallerUtterance(context, self._ear, EndOfTurn(services, group), self._partials)
        self._performance = CommandExecutor(
            services,
            ear=self._ear,
            utterance=self._utterance,
            replies=self.replies,
            attention=self._attention,
            post=self._mailbox.post,
        )

    # -- the transport's side ----------------------------------------------------------------------------------------

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        key: str,
        services: Services,
        send: Callable[[Json], None],
        config: SessionConfig,
        *,
        wake_ticker: Callable[[], None],
        tenant: str = "",
    ) -> AsyncIterator[Session]:
        """Yield a session that has greeted and takes audio and events.

        Leaving it stops every task and engine call of the session. An exception of the body is raised as it is; so is
        what a task of the session raised, which cancels the body.
        """
        context = SessionContext.create(key, services=services, send=send, config=config, tenant=tenant)
        try:
            async with asyncio.TaskGroup() as group:
                session = cls(context, group, wake_ticker)
                session._clerk.greet()
                session.replies.read_ahead()
                group.create_task(session._take_events())
                try:
                    yield session
                finally:
                    session._close()
                raise _SessionClosed
        except BaseExceptionGroup as faults:
            _raise_first(faults)

    async def _take_events(self) -> None:
        """Take one event after another, until cancelled."""
        while True:
            self._take(await self._mailbox.get())

    def _close(self) -> None:
        self._performance.close()
        self._ear.release()

    @property
    def config(self) -> SessionConfig:
        """The configuration in effect."""
        return self.context.config

    @property
    def conversation(self) -> Conversation:
        """The items of the conversation."""
        return self.context.conversation

    def hear(self, pcm: bytes) -> None:
        """Take 16 kHz PCM of any length."""
        self._greet()
        self._ear.append(pcm, self._services.clock())
        if self.config.detection.mode is DetectionMode.NONE:
            self._ear.skip()
            self._performance.caught_up()
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
        self.context.emit(event)

    # -- the ticker's side -------------------------------------------------------------------------------------------

    @property
    def ear(self) -> AudioInput:
        return self._ear

    def speech(self, events: tuple[SpeechEvent, ...]) -> None:
        """The ticker decided a window."""
        for event in events:
            self._mailbox.post(event)
        if self._ear.dip == self._ear.processed and not events:  # else the transcript of all is due
            self._partials.hasten()
        if self._ear.in_speech:
            self._mailbox.post(turn_events.AudioProcessed(self._ear.processed))
        self._attention.tune()
        self._performance.caught_up()

    def vad_failed(self) -> None:
        """Voice activity cannot be decided: if somebody may be speaking, apologise until it can."""
        self._trouble.mark("vad")
        if self.state.caller is not CallerState.QUIET or self._ear.backlog_audible():
            self.replies.apologise(self._trouble)

    def vad_recovered(self) -> None:
        self._trouble.recovered("vad")

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _take(self, event: TurnEvent | tuple[client.ClientEvent, int]) -> None:
        if not isinstance(event, tuple):
            self.step(event)
            return
        request, received = event
        with contained("wire", self._services.metrics, what=f"the answer to {type(request).__name__}") as answer:
            try:
                self._clerk.answer(request, received)
            except CallerError as fault:
                self.reject(fault, request.event_id)
        if answer.broke:
            self.emit(server.server_error("internal_error", "This event could not be answered.", request.event_id))

    def step(self, event: TurnEvent) -> None:
        """Let the turn machine decide about one event, and do as it says."""
        self.state, wanted = turns.step(self.state, event, self.context.turn_rules, self._when(event))
        for command in wanted:
            self._performance.perform(command, self.state.start)

    def _when(self, event: TurnEvent) -> float:
        """The instant an event speaks of: what was decided about audio counts from its arrival, not from its tick."""
        arrived = None
        if isinstance(event, SoftEnd):
            arrived = self._ear.arrival(event.at)
        elif isinstance(event, VerdictReady):
            arrived = self._ear.arrival(event.processed)
        return self._services.clock() if arrived is None else arrived

    # -- the clerk's side --------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a response of the conversation is open on the wire."""
        return self.replies.current is not None and self.replies.current.open

    def configured(self) -> None:
        """The configuration changed: hear by it from the next window on."""
        self._attention.configured()
        self.replies.read_ahead()
        self._greet()

    def _greet(self) -> None:
        """Once, when the client has said how it listens, or speaks without having said so; a conversation that has
        begun, or is held in writing, needs no greeting.
        """
        greeting, self._greeting = self._greeting, ""
        if greeting and not len(self.conversation) and not self.busy:
            order = self.replies.standing_order()
            if order.spoken:
                self.request_reply(replace(order, said=greeting))

    def clear(self, end: int) -> None:
        """Drop the caller's audio before sample `end` that is not committed yet."""
        self.step(turn_events.ClearRequested(end))
        self._utterance.drop(end)

    def request_reply(self, order: ReplyRequest) -> None:
        """response.create: the machine starts it; `order` says what it changes."""
        self.step(turn_events.ReplyRequested(order))

    # -- the replies' side -------------------------------------------------------------------------------------------

    def _reply_ended(self, reply: Reply) -> None:
        """The reply's audio was heard to its end, or it failed."""
        if reply is self.replies.current and self.state.agent is not AgentState.IDLE:
            self._mailbox.post(turn_events.ReplyEnded())


class _SessionClosed(Exception):
    """Raised in a session's task group to cancel its tasks."""


def _raise_first(group: BaseExceptionGroup[BaseException]) -> None:
    """Raise the first exception of a group of groups, unless the session was closed."""
    first = group.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if not isinstance(first, _SessionClosed):
        raise first from group
