"""Listening while we speak: how soon speech is believed, and whether its words are meant for us."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from actors.listening.audio_input import Ear, speech_settings
from actors.listening.end_of_turn import Hearing
from actors.replying.replies import Replies
from actors.stages.ports import Transcript
from actors.stages.services import Services
from rejoinder.core.turns.barge_in import Floor, Reading, read, stops
from rejoinder.core.turns.events import Guessed, Heard, TurnEvent
from rejoinder.core.turns.state import Agent, Caller, Claim, TurnRules, TurnState

# What of our own speech may come back as an echo: what was just heard, and what the listener hears while it is said.
SPOKEN_BEFORE_S = 10.0
SPOKEN_BEHIND_S = 1.0


class Talk(Protocol):
    """The session as its attention sees it."""

    replies: Replies

    @property
    def rules(self) -> TurnRules: ...

    @property
    def state(self) -> TurnState: ...

    def post(self, event: TurnEvent) -> None: ...


class Attention:
    """Of one session; not thread-safe."""

    def __init__(self, talk: Talk, services: Services, ear: Ear) -> None:
        self._talk = talk
        self._services = services
        self._settings = services.settings.barge_in
        self._ear = ear
        self._usual = self._keen = ear.settings
        self._hearing: Hearing | None = None
        self.denied_as = Reading.NO_WORDS
        """How the newest words were read that were not meant for us."""

    def configured(self) -> None:
        """The client's turn detection changed: hear by it from the next window on."""
        self._usual = speech_settings(self._services.settings.speech, self._talk.rules.detection)
        soonest_ms = min(self._usual.min_speech_ms, self._settings.pause_after_ms)
        self._keen = self._usual.model_copy(update={"min_speech_ms": soonest_ms})
        self.tune()

    def tune(self) -> None:
        """Believe speech sooner while it would only pause a reply that is being heard."""
        state = self._talk.state
        keen = state.agent is Agent.REPLYING and state.caller is Caller.QUIET and self._talk.replies.audible
        self._ear.settings = self._keen if keen and self._talk.rules.pauses else self._usual

    def begin(self) -> None:
        """The caller begins to speak."""
        self._hearing = None
        self.denied_as = Reading.NO_WORDS

    def await_words(self, revision: int, hearing: Hearing) -> None:
        """Report the words of an utterance that has to prove itself, when they are known."""
        if self._talk.state.claim is not Claim.NONE:
            self._hearing = hearing
            hearing.transcript.add_done_callback(lambda transcript: self._known(revision, transcript))

    def nobody_knows(self, revision: int) -> None:
        """The words may be overdue. If that is because speech-to-text fails, the caller is not to pay for it."""
        if self._talk.state.claim is Claim.DUE and self._hearing and self._hearing.trouble.active:
            self._talk.post(Heard(revision, meant=True, processed=self._ear.processed))

    def guessed(self, newest: str, sure: str) -> None:
        """A transcript of what was said so far, and its words that hardly change any more.

        An unsure word may be an invention, so it ends nothing; but it speaks for waiting.
        """
        state = self._talk.state
        if state.claim is Claim.NONE:
            return
        spoken = self._services.settings.stt.language
        if stops(newest, self._settings, spoken) or (sure and self._meant(sure)):
            self._talk.post(Guessed(state.revision, meant=True))
        elif not self._meant(newest):
            self._talk.post(Guessed(state.revision, meant=False))

    def _known(self, revision: int, transcript: asyncio.Future[Transcript]) -> None:
        if transcript.cancelled():
            return  # forgotten
        meant = transcript.exception() is not None or self._meant(transcript.result().text)
        self._talk.post(Heard(revision, meant, self._ear.processed))

    def _meant(self, text: str) -> bool:
        found = read(text, self._floor(), self._settings, self._services.settings.stt.language)
        if found is not Reading.MEANT:
            self.denied_as = found
        return found is Reading.MEANT

    def _floor(self) -> Floor:
        agent, rules = self._talk.state.agent, self._talk.rules
        over = agent is Agent.PAUSED or (agent is Agent.REPLYING and rules.pauses)
        reply = self._talk.replies.current
        if reply is None:
            return Floor("", over, math.inf)
        words, left_s = reply.saying(SPOKEN_BEFORE_S, SPOKEN_BEHIND_S)
        return Floor(words, over, left_s)
