"""Carrying out what the turn machine commands, and the one timer that it sets."""

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
    """Of one session; `post` takes the events that come of it. Not thread-safe."""

    def __init__(
        self,
        services: Services,
        ear: AudioInput,
        utterance: CallerUtterance,
        replies: Replies,
        *,
        attention: BargeInDetector,
        post: Callable[[TurnEvent], None],
    ) -> None:
        self._services = services
        self._ear = ear
        self._utterance = utterance
        self._replies = replies
        self._attention = attention
        self._post = post
        self._timer: asyncio.TimerHandle | None = None
        # The revision whose required silence passed while audio still waited for its decision.
        self._overdue: int | None = None

    def perform(self, command: Command, start: int) -> None:
        """Do it; the caller's utterance began at sample `start`."""
        match command:
            case commands.AnnounceSpeech(begun):
                self._attention.begin()
                self._replies.summaries.withdraw()
                self._utterance.announce(begun)
            case commands.Transcribe(revision, begun, end, judge):
                self._utterance.hear(begun, end, partial(self._judged, revision) if judge else None)
                self._attention.await_words(revision, self._utterance.hearing)
            case commands.CancelRevision():
                self._replies.discard()
                self._utterance.forget()
            case commands.WaitUntil(revision, at):
                self._wake_at(at, partial(self._wait_over, revision))
            case commands.CommitTurn():
                self._replies.expect(self._utterance.commit(command))
            case commands.StartIdleTimer(revision, at):
                quiet = self._ear.received
                self._wake_at(at, lambda: self._post(IdleTimeout(revision, quiet, self._ear.received)))
            case commands.CommitIdleTurn(begun, end):
                self._utterance.commit_silence(begun, end)
            case commands.DismissUtterance(speech_end, end):
                self._utterance.dismiss(speech_end, end)
                self._services.metrics.overheard(self._attention.denied_as.value)
            case _:
                self._perform_reply(command, self._ear.arrival(start + 1))

    def _perform_reply(self, command: Command, since: float | None) -> None:
        """`since`: when the caller's utterance arrived."""
        match command:
            case commands.StartDraft(revision):
                self._replies.draft(revision, self._utterance.hearing)
            case commands.DiscardDraft():
                self._replies.discard()
            case commands.StartReply(draft, request):
                assert request is None or isinstance(request, ReplyRequest)  # the core passes it on as it got it
                self._replies.start(request, draft)
            case commands.PauseReply():
                self._replies.pause(since)
                self._utterance.attend()
            case commands.ResumeReply():
                self._replies.resume()
            case commands.CancelReply(reason):
                self._replies.cut(reason, since)

    def caught_up(self) -> None:
        """Audio was decided: what waited for that may be over."""
        if self._overdue is not None:
            self._wait_over(self._overdue)

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._timer:
            self._timer.cancel()

    def _judged(self, revision: int, probability: float | None) -> None:
        self._post(VerdictReady(revision, probability, self._ear.processed))

    def _wait_over(self, revision: int) -> None:
        """The required silence has passed, if what is still undecided says so too: the next tick will tell."""
        self._overdue = revision if self._ear.backlog else None
        if self._overdue is None:
            self._attention.nobody_knows(revision)
            self._post(SilenceElapsed(revision))

    def _wake_at(self, at: float, act: Callable[[], None]) -> None:
        """Do something at a monotonic time; the machine waits for one thing at a time."""
        self.close()
        delay = max(0.0, at - self._services.clock())
        self._timer = asyncio.get_running_loop().call_later(delay, act)
