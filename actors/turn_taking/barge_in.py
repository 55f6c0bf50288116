"""Listening while we speak: how soon speech is believed, and whether its words are meant for us."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from actors.listening.audio_input import AudioInput, speech_settings
from actors.listening.end_of_turn import EndOfTurnRequest
from actors.replying.replies import Replies
from actors.stages.ports import Transcript
from actors.stages.session_context import SessionContext
from rejoinder.core.turns.barge_in import AgentSpeech, SpeechReading, read, stops
from rejoinder.core.turns.events import InterimReady, TranscriptReady, TurnEvent
from rejoinder.core.turns.state import AgentState, BargeInCheck, CallerState, TurnState

# What of our own speech may come back as an echo: what was just heard, and what the listener hears while it is said.
SPOKEN_BEFORE_S = 10.0
SPOKEN_BEHIND_S = 1.0


class BargeInDetector:
    """Of one session; not thread-safe."""

    def __init__(
        self,
        context: SessionContext,
        ear: AudioInput,
        replies: Replies,
        *,
        state: Callable[[], TurnState],
        post: Callable[[TurnEvent], None],
    ) -> None:
        """`state` returns the turn machine's state; `post` takes events for it."""
        self._context = context
        self._services = context.services
        self._settings = context.services.settings.barge_in
        self._replies = replies
        self._state = state
        self._post = post
        self._ear = ear
        self._usual = self._keen = ear.settings
        self._hearing: EndOfTurnRequest | None = None
        self.denied_as = SpeechReading.NO_WORDS
        """How the newest words were read that were not meant for us."""
        self.configured()

    def configured(self) -> None:
        """The client's turn detection changed: hear by it from the next window on."""
        self._usual = speech_settings(self._services.settings.speech, self._context.turn_rules.detection)
        soonest_ms = min(self._usual.min_speech_ms, self._settings.pause_after_ms)
        self._keen = self._usual.model_copy(update={"min_speech_ms": soonest_ms})
        self.tune()

    def tune(self) -> None:
        """Believe speech sooner while it would only pause a reply that is being heard."""
        state = self._state()
        keen = state.agent is AgentState.REPLYING and state.caller is CallerState.QUIET and self._replies.audible
        self._ear.settings = self._keen if keen and self._context.turn_rules.pauses else self._usual

    def begin(self) -> None:
        """The caller begins to speak."""
        self._hearing = None
        self.denied_as = SpeechReading.NO_WORDS

    def await_words(self, revision: int, hearing: EndOfTurnRequest) -> None:
        """Report the words of an utterance that has to prove itself, when they are known."""
        if self._state().claim is not BargeInCheck.NOT_NEEDED:
            self._hearing = hearing
            hearing.transcript.add_done_callback(lambda transcript: self._known(revision, transcript))

    def nobody_knows(self, revision: int) -> None:
        """The words may be overdue. If that is because speech-to-text fails, the caller is not to pay for it."""
        if self._state().claim is BargeInCheck.OVERDUE and self._hearing and self._hearing.trouble.active:
            self._post(TranscriptReady(revision, meant=True, processed=self._ear.processed))

    def guessed(self, newest: str, sure: str) -> None:
        """A transcript of what was said so far, and its words that hardly change any more.

        An unsure word may be an invention, so it ends nothing; but it speaks for waiting.
        """
        state = self._state()
        if state.claim is BargeInCheck.NOT_NEEDED:
            return
        spoken = self._services.settings.stt.language
        if stops(newest, self._settings, spoken) or (sure and self._meant(sure)):
            self._post(InterimReady(state.revision, meant=True))
        elif not self._meant(newest):
            self._post(InterimReady(state.revision, meant=False))

    def _known(self, revision: int, transcript: asyncio.Future[Transcript]) -> None:
        if transcript.cancelled():
            return  # forgotten
        meant = transcript.exception() is not None or self._meant(transcript.result().text)
        self._post(TranscriptReady(revision, meant, self._ear.processed))

    def _meant(self, text: str) -> bool:
        found = read(text, self._floor(), self._settings, self._services.settings.stt.language)
        if found is not SpeechReading.MEANT:
            self.denied_as = found
        return found is SpeechReading.MEANT

    def _floor(self) -> AgentSpeech:
        agent, rules = self._state().agent, self._context.turn_rules
        over = agent is AgentState.PAUSED or (agent is AgentState.REPLYING and rules.pauses)
        reply = self._replies.current
        if reply is None:
            return AgentSpeech("", over, math.inf)
        words, left_s = reply.saying(SPOKEN_BEFORE_S, SPOKEN_BEHIND_S)
        return AgentSpeech(words, over, left_s)
