"""One conversation: its mailbox, the turn machine, and the objects that carry out the machine's commands.

The loop takes one event from the mailbox, passes it to `rejoinder.core.turns.machine.step`, and executes the commands
that `step` returns. All decisions about turns are made by `step`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from actors.client_events import ClientEventHandler
from actors.listening.audio_input import AudioInput, speech_settings
from actors.listening.clips import Clips
from actors.listening.end_of_turn import EndOfTurn
from actors.listening.interim_transcripts import InterimTranscripts
from actors.listening.transcript_deltas import TranscriptDeltas
from actors.listening.turn_judge import TurnJudge
from actors.mailbox import Mailbox
from actors.replying.lead_in import FollowUp, LeadIn
from actors.replying.replies import Replies
from actors.replying.reply import Reply
from actors.replying.requests import ReplyRequest
from actors.resuming import MoveRequest, go_on, restore, snapshot_of
from actors.stages.ports import AudioOutput
from actors.stages.retry import StageFailures, contained
from actors.stages.services import Services
from actors.stages.session_context import SessionContext
from actors.survival.session_record import SessionRecord
from actors.turn_taking.barge_in import BargeInDetector
from actors.turn_taking.command_executor import CommandExecutor
from actors.turn_taking.utterance import CallerUtterance
from rejoinder.core.errors import CallerError
from rejoinder.core.reply.satisfaction import hang_up
from rejoinder.core.reply.tools.calls import ToolMode
from rejoinder.core.survival.snapshot import resume_count
from rejoinder.core.turns import events as turn_events
from rejoinder.core.turns import machine as turns
from rejoinder.core.turns.endpointing import DetectionMode
from rejoinder.core.turns.events import TurnEvent, VerdictReady
from rejoinder.core.turns.speech_detector import SoftEnd, SpeechEvent
from rejoinder.core.turns.state import AgentState, CallerState, TurnState
from rejoinder.core.wire import client, server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.items import Conversation
from rejoinder.core.wire.mcp_tools import request_of
from rejoinder.core.wire.session import SessionConfig


class Session:
    """One running conversation. Create it with `open`.

    All methods must be called on the session's event loop.

    Attributes:
        context: Identity, conversation, wire and services of the session.
        state: The turn machine's state.
        replies: The session's replies.
        audio_input: The caller's audio.
    """

    def __init__(
        self,
        context: SessionContext,
        group: asyncio.TaskGroup,
        wake_ticker: Callable[[], None],
        record: SessionRecord | None = None,
    ) -> None:
        """Build the session and its parts. Callers use `open` instead.

        Args:
            context: Identity, conversation, wire and services.
            group: Owns all tasks of the session.
            wake_ticker: Called when received audio waits for its voice activity decision.
            record: The session's record in the journal; None if there is no journal.
        """
        services = context.services
        self.context = context
        self.state = TurnState()
        self.replies = Replies(context, group, self._reply_ended)
        context.server_tools.listed = self.replies.read_ahead
        self._lead_in = LeadIn(context, self._quiet_after, self._say_lead_in)
        self._follow_up = FollowUp(context, self._quiet_after, self._answer_results)
        self._services = services
        self._wake_ticker = wake_ticker
        self.audio_input = _audio_input(context)
        self._mailbox: Mailbox[TurnEvent, tuple[client.ClientEvent, int]] = Mailbox()
        self._client_events = ClientEventHandler(self, context, record.expires_at if record else None)
        self._vad_failures = StageFailures(services.metrics)
        self._pending_greeting = services.settings.conversation.greeting
        # True if the newest audio message displaced audio that was still needed. The client gets one error event for
        # all such messages in a row.
        self._losing = False
        self._barge_in = BargeInDetector(
            context, self.audio_input, self.replies, state=lambda: self.state, post=self._mailbox.post
        )
        deltas = TranscriptDeltas(context, lambda: self.state)
        self._interims = InterimTranscripts(
            services, self.audio_input, group, self.replies, barge_in=self._barge_in, deltas=deltas
        )
        end_of_turn = EndOfTurn(
            services, group, TurnJudge(services, group, self.replies), word_times=lambda: bool(self.config.include)
        )
        self.clips = Clips(services, end_of_turn)
        self._utterance = CallerUtterance(context, self.audio_input, end_of_turn, self._interims, deltas=deltas)
        self._executor = CommandExecutor(
            services,
            audio_input=self.audio_input,
            utterance=self._utterance,
            replies=self.replies,
            barge_in=self._barge_in,
            post=self._mailbox.post,
        )
        self._record = record
        self._move: MoveRequest | None = None
        if record:
            self._join(record)

    def _join(self, record: SessionRecord) -> None:
        """Let the journal make snapshots of this session, and take over the state of the snapshot that it resumes."""
        record.capture = partial(snapshot_of, self, record.origin)
        record.speaking = lambda: (
            self.replies.current.advance if self.replies.audible and self.replies.current else None
        )
        self._move = MoveRequest(self, record, asyncio.get_running_loop().call_later)
        if record.origin.snapshot and record.origin.resumption:
            restore(self, record.origin.snapshot, record.origin.resumption)
            if record.origin.snapshot.greeted:
                self._pending_greeting = ""

    # -- called by the transport (WebSocket) ---------------------------------------------------------------------------

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
        record: SessionRecord | None = None,
        output: AudioOutput | None = None,
    ) -> AsyncIterator[Session]:
        """Yield a session that has sent session.created and accepts audio and events.

        Leaving the context manager cancels every task and engine call of the session. An exception of the `async with`
        block is raised as it is. An unexpected exception in a task of the session cancels the block and is raised
        instead.

        Args:
            key: Makes the session's ids unique on the host.
            services: What all sessions of the host share.
            send: Called with each server event. It must not block.
            config: The configuration to start with.
            wake_ticker: Called when received audio waits for its voice activity decision.
            tenant: Digest of the API key. Only sessions of one tenant share cached answers.
            record: The session's record in the journal. It says what the session goes on with. None: no journal.
            output: Plays the audio of replies in real time; None if the client does, which gets it in events.
        """
        context = SessionContext.create(
            key,
            services=services,
            send=record.watching(send) if record else send,
            config=config,
            tenant=tenant,
            resumed=resume_count(record.origin.generation) if record else 0,
            changed=record.changed if record else lambda: None,
            output=output,
        )
        try:
            async with asyncio.TaskGroup() as group:
                session = cls(context, group, wake_ticker, record)
                context.server_tools.start(group.create_task)
                context.server_tools.request([request_of(tool) for tool in context.config.mcp])
                session._announce()
                session.replies.read_ahead()
                group.create_task(session._take_events())
                try:
                    yield session
                finally:
                    session._close()
                raise _SessionClosed
        except BaseExceptionGroup as faults:
            _raise_first(faults)

    def _announce(self) -> None:
        """Send session.created. If the session is resumed, send what is known of it and go on with it."""
        record = self._record
        self._client_events.announce_session(server.resume_offer(record.token, record.expires_at) if record else None)
        if record and record.origin.resumption:
            go_on(self, record.origin.resumption)

    async def _take_events(self) -> None:
        """Handle one event after another, until cancelled."""
        while True:
            self._handle(await self._mailbox.get())

    def _close(self) -> None:
        self._executor.close()
        self._lead_in.close()
        self._client_events.close()
        self.audio_input.release()

    @property
    def record(self) -> SessionRecord | None:
        """The session's record in the journal; None if there is no journal."""
        return self._record

    @property
    def greeted(self) -> bool:
        """True if no greeting is to be spoken any more."""
        return not self._pending_greeting

    def ask_to_move(self, reason: str) -> None:
        """Ask the client to connect to another host, at the next boundary between turns. `reason` is a word for it."""
        if self._move:
            self._move.ask(reason)

    @property
    def config(self) -> SessionConfig:
        """The configuration in effect."""
        return self.context.config

    @property
    def conversation(self) -> Conversation:
        """The items of the conversation."""
        return self.context.conversation

    def append_audio(self, pcm: bytes) -> None:
        """Append 16-bit PCM at 16 kHz, of any length, to the caller's audio."""
        self._greet()
        manual = self.config.detection.mode is DetectionMode.NONE
        lost = self.audio_input.append(pcm, self._services.clock(), keep_all=manual)
        if lost and not self._losing:
            self.reject(_audio_lost(self._services.settings.host.max_buffered_audio_s), None)
        self._losing = lost > 0
        if manual:
            self.audio_input.skip()
            self._executor.caught_up()
        self._wake_ticker()

    async def submit(self, event: client.ClientEvent) -> None:
        """Queue a client event; wait while the mailbox is full. The event applies after all audio received so far."""
        await self._mailbox.submit((event, self.audio_input.received))

    async def configure(self, event: client.UpdateSession) -> None:
        """Submit a session.update and wait until it is handled, because it decides how later audio is decoded."""
        await self.submit(event)
        await self._mailbox.answered()

    def reject(self, fault: CallerError, client_event_id: str | None) -> None:
        """Send an error event for a client event that was refused. The session continues.

        `client_event_id` is the event's own `event_id`; None if it has none.
        """
        self._services.metrics.error("caller", "wire")
        self.emit(server.error(fault, client_event_id))

    def hung_up(self) -> None:
        """Count that the client has ended the conversation. Call it before the session is closed.

        A client that goes on with the conversation at another host does not end it.
        """
        if self._record and (self._record.moving or self._record.taken.is_set()):
            return
        when = hang_up(self._services.clock(), speaking=self.replies.audible, reply_ended_at=self.replies.last_ended_at)
        turns = sum(item.role == "user" and bool(item.text) for item in self.conversation)
        self._services.metrics.hung_up(when.value, turns)

    def emit(self, event: Json) -> None:
        """Add an event_id to a server event and send it."""
        self.context.emit(event)

    # -- called by the voice activity ticker (VadListener) -------------------------------------------------------------

    def speech(self, events: tuple[SpeechEvent, ...]) -> None:
        """Handle the starts and ends of speech in a window that was just decided (`VadListener.speech`)."""
        for event in events:
            self._mailbox.post(event)
        # A dip has just begun, so an interim transcript is due. If speech ends in the same window, the turn machine
        # requests the final transcript instead.
        if self.audio_input.dip == self.audio_input.processed and not events:
            self._interims.dip_started()
        if self.audio_input.in_speech:
            self._utterance.grew(self.audio_input.processed)
            self._mailbox.post(turn_events.AudioProcessed(self.audio_input.processed))
        self._barge_in.tune()
        self._executor.caught_up()

    def vad_failed(self) -> None:
        """Handle a failed call of voice activity detection (`VadListener`): apologise if the caller may be speaking."""
        self._vad_failures.mark("vad")
        if self.state.caller is not CallerState.QUIET or self.audio_input.backlog_audible():
            self.replies.apologise(self._vad_failures)

    def vad_recovered(self) -> None:
        """Handle the first successful call of voice activity detection after failed ones (`VadListener`)."""
        self._vad_failures.recovered("vad")

    # -- handling of the mailbox's events ------------------------------------------------------------------------------

    def _handle(self, event: TurnEvent | tuple[client.ClientEvent, int]) -> None:
        if not isinstance(event, tuple):
            self.step(event)
            return
        client_event, received = event
        with contained("wire", self._services.metrics, what=f"the answer to {type(client_event).__name__}") as handling:
            try:
                self._client_events.handle(client_event, received)
            except CallerError as fault:
                self.reject(fault, client_event.event_id)
        if handling.broke:
            self.emit(server.server_error("internal_error", "This event could not be answered.", client_event.event_id))

    def step(self, event: TurnEvent) -> None:
        """Advance the turn machine by one event and execute its commands."""
        self.state, commands = turns.step(self.state, event, self.context.turn_rules, self._occurred_at(event))
        for command in commands:
            self._executor.execute(command, self.state.start)
        self._follow_up.stepped()
        if self._move:
            self._move.stepped()

    def _occurred_at(self, event: TurnEvent) -> float:
        """Return the monotonic time of an event, in seconds.

        For a decision about audio this is when the audio arrived, and not when the decision was made.
        """
        arrived_at = None
        if isinstance(event, SoftEnd):
            arrived_at = self.audio_input.arrival(event.at)
        elif isinstance(event, VerdictReady):
            arrived_at = self.audio_input.arrival(event.processed)
        return self._services.clock() if arrived_at is None else arrived_at

    # -- called by the client event handler ----------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while a response of the conversation is open on the wire, other than a lead-in.

        A lead-in is not what the client asked for, so it does not keep the client from asking for a response.
        """
        current = self.replies.current
        return current is not None and current.open and not current.plan.terms.request.lead_in

    def configured(self) -> None:
        """Apply the new configuration after a session.update, for turn detection from the next audio window on."""
        self._barge_in.configured()
        self.replies.read_ahead()
        self._greet()

    def _greet(self) -> None:
        """Speak the greeting, once per session: after the first session.update, or with the first audio.

        If the method was called before, it does nothing. A conversation that already has items, or whose replies are
        text, gets no greeting.
        """
        greeting, self._pending_greeting = self._pending_greeting, ""
        if self.config.transcribes_only:
            return
        if greeting and not len(self.conversation) and not self.busy:
            request = self.replies.default_request()
            if request.spoken:
                self.request_reply(replace(request, text=greeting))

    def clear(self, end: int) -> None:
        """Drop the uncommitted audio of the caller before sample `end`."""
        self.step(turn_events.ClearRequested(end))
        self._utterance.clear(end)

    def request_reply(self, request: ReplyRequest) -> None:
        """Start the reply that a response.create requests."""
        self.step(turn_events.ReplyRequested(request))

    def _quiet_after(self, reply: Reply) -> bool:
        """Return True if nobody speaks, and no other reply has begun since `reply`."""
        quiet = self.state.caller is CallerState.QUIET and self.state.agent is AgentState.IDLE
        return quiet and reply is self.replies.current

    def _say_lead_in(self, phrase: str) -> None:
        self.request_reply(replace(self.replies.default_request(), text=phrase, lead_in=True))

    def _answer_results(self, mode: ToolMode) -> Reply | None:
        request = self.replies.default_request()
        self.request_reply(replace(request, tools=replace(request.tools, mode=mode, named="")))
        return self.replies.current

    def _reply_ended(self, reply: Reply) -> None:
        """Tell the turn machine that `reply` ended, if it is the current one.

        A reply ends when it was heard to its end, has failed, or was cancelled by the client.
        """
        if reply.plan.events.conversation_id is not None:
            self._lead_in.reply_ended(reply)
            self._follow_up.reply_ended(reply)
        if reply is self.replies.current and self.state.agent is not AgentState.IDLE:
            self._mailbox.post(turn_events.ReplyEnded())


def _audio_input(context: SessionContext) -> AudioInput:
    services = context.services
    settings = services.settings
    return AudioInput(
        speech_settings(settings.speech, context.config.detection),
        settings.host.audio_ring_s,
        services.stages.suppressor() if services.stages.suppressor else None,
        max_ring_s=settings.host.max_buffered_audio_s,
        background=settings.background,
        stored=services.stored,
    )


def _audio_lost(kept_s: float) -> CallerError:
    return CallerError(
        f"More audio waits to be transcribed than the server keeps: {kept_s:g} s of a client, and what"
        " limits.host_bytes permits for all clients together. The oldest audio is dropped.",
        "Commit or clear the input audio buffer sooner.",
        code="input_audio_buffer_full",
    )


class _SessionClosed(Exception):
    """Raised in a session's task group to cancel its tasks."""


def _raise_first(group: BaseExceptionGroup[BaseException]) -> None:
    """Raise the first exception inside nested exception groups. Raise nothing if it is `_SessionClosed`."""
    first = group.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if not isinstance(first, _SessionClosed):
        raise first from group
