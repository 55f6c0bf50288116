"""Execution of the turn machine's commands, and the one timer that the machine sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from actors.listening.audio_input import AudioInput
from actors.replying.replies import Replies
from actors.replying.requests import ReplyRequest
from actors.stages.services import Services
from actors.turn_taking.barge_in import BargeInDetector
from actors.turn_taking.utterance import CallerUtterance
from rejoinder.core.turns import commands
from rejoinder.core.turns.commands import Command
from rejoinder.core.turns.events import IdleTimeout, SilenceElapsed, TurnEvent, VerdictReady


class CommandExecutor:
    """Executes the commands of one session's turn machine; not thread-safe."""

    def __init__(
        self,
        services: Services,
        audio_input: AudioInput,
        utterance: CallerUtterance,
        replies: Replies,
        *,
        barge_in: BargeInDetector,
        post: Callable[[TurnEvent], None],
    ) -> None:
        """Create the executor.

        Args:
            services: Shared services of the host.
            audio_input: The caller's audio.
            utterance: The caller's current utterance.
            replies: The session's replies.
            barge_in: The session's barge-in detector.
            post: Sends an event that a command caused to the turn machine.
        """
        self._services = services
        self._audio_input = audio_input
        self._utterance = utterance
        self._replies = replies
        self._barge_in = barge_in
        self._post = post
        self._timer: asyncio.TimerHandle | None = None
        # Revision for which the required silence elapsed while received audio was still without a voice activity
        # decision; None if there is none.
        self._elapsed_revision: int | None = None

    def execute(self, command: Command, utterance_start: int) -> None:
        """Execute a command; `utterance_start` is the sample (16 kHz) at which the caller's utterance began."""
        match command:
            case commands.AnnounceSpeech(start, reveal):
                self._barge_in.begin()
                self._replies.summaries.withdraw()
                self._utterance.begin(start)
                if reveal:
                    self._utterance.announce()
            case commands.RevealSpeech():
                self._utterance.announce()
            case commands.Transcribe(revision, start, end, judge):
                self._utterance.transcribe(start, end, partial(self._on_verdict, revision) if judge else None)
                self._barge_in.await_words(revision, self._utterance.request)
            case commands.CancelRevision():
                self._replies.discard()
                self._utterance.cancel_request()
            case commands.WaitUntil(revision, at):
                self._wake_at(at, partial(self._silence_elapsed, revision))
            case commands.CommitTurn():
                self._replies.expect(self._utterance.commit(command))
            case commands.StartIdleTimer(revision, at):
                quiet_from = self._audio_input.received
                self._wake_at(at, lambda: self._post(IdleTimeout(revision, quiet_from, self._audio_input.received)))
            case commands.CommitIdleTurn(start, end):
                self._utterance.commit_silence(start, end)
            case commands.DismissUtterance(speech_end, end):
                self._utterance.dismiss(speech_end, end)
                self._barge_in.dismissed(end)
                self._services.metrics.dismissed_speech(self._barge_in.rejected_as.value)
            case _:
                self._execute_reply(command, self._audio_input.arrival(utterance_start + 1))

    def _execute_reply(self, command: Command, interrupted_at: float | None) -> None:
        """Execute a command about replies; `interrupted_at` is the monotonic time when the caller's speech arrived."""
        match command:
            case commands.StartDraft(revision):
                self._replies.draft(revision, self._utterance.request)
            case commands.DiscardDraft():
                self._replies.discard()
            case commands.StartReply(draft, request):
                # The turn machine copies the request from the event ReplyRequested, without knowing its type.
                assert request is None or isinstance(request, ReplyRequest)
                self._replies.start(request, draft)
            case commands.PauseReply(dropped):
                self._replies.pause(interrupted_at, dropped=dropped)
                self._utterance.prioritize()
            case commands.ResumeReply():
                self._replies.resume()
            case commands.CancelReply(reason):
                self._replies.cut(reason, interrupted_at)

    def caught_up(self) -> None:
        """Check again whether the required silence has elapsed. Call this when more audio windows were decided."""
        if self._elapsed_revision is not None:
            self._silence_elapsed(self._elapsed_revision)

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer:
            self._timer.cancel()

    def _on_verdict(self, revision: int, probability: float | None) -> None:
        self._post(VerdictReady(revision, probability, self._audio_input.processed))

    def _silence_elapsed(self, revision: int) -> None:
        """Tell the turn machine that the silence required for the end of the turn has elapsed.

        Audio without a voice activity decision may still contain speech. While there is such audio, only the revision
        is stored, and `caught_up` checks again.
        """
        self._elapsed_revision = revision if self._audio_input.backlog else None
        if self._elapsed_revision is None:
            self._barge_in.words_overdue(revision)
            self._post(SilenceElapsed(revision))

    def _wake_at(self, at: float, act: Callable[[], None]) -> None:
        """Call `act` at monotonic time `at`. An earlier timer is cancelled: the machine waits for one time only."""
        self.close()
        delay = max(0.0, at - self._services.clock())
        self._timer = asyncio.get_running_loop().call_later(delay, act)
