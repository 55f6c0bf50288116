"""Barge-in detection of a session: it applies the rules of `core.turns.barge_in` to its transcripts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from actors.listening.audio_input import AudioInput, speech_settings
from actors.listening.end_of_turn import EndOfTurnRequest
from actors.replying.replies import Replies
from actors.stages.ports import Transcript
from actors.stages.session_context import SessionContext
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.turns.barge_in import (
    AgentSpeech,
    SpeechKind,
    classify_speech,
    has_stop_word,
    is_addressed,
    is_unsure,
)
from rejoinder.core.turns.events import InterimReady, TranscriptReady, TurnEvent
from rejoinder.core.turns.state import AgentState, BargeInCheck, CallerState, TurnState

# The part of the reply whose words may come back as an echo: seconds before and after the listener's position in it.
SPOKEN_BEFORE_S = 10.0
SPOKEN_BEHIND_S = 1.0


class BargeInDetector:
    """Barge-in detection of one session; not thread-safe.

    Attributes:
        rejected_as: Why the utterance is no barge-in, by its latest transcript that does not address the agent;
            NO_WORDS without such a transcript.
    """

    def __init__(
        self,
        context: SessionContext,
        audio_input: AudioInput,
        replies: Replies,
        *,
        state: Callable[[], TurnState],
        post: Callable[[TurnEvent], None],
    ) -> None:
        """Create the detector and configure the audio input.

        Args:
            context: The session.
            audio_input: The caller's audio. `tune` replaces its speech settings.
            replies: The session's replies.
            state: Returns the turn machine's state.
            post: Sends an event to the turn machine.
        """
        self._context = context
        self._services = context.services
        self._settings = context.services.settings.barge_in
        self._replies = replies
        self._state = state
        self._post = post
        self._audio_input = audio_input
        self._normal = self._sensitive = audio_input.settings
        self._end_of_turn: EndOfTurnRequest | None = None
        self.rejected_as = SpeechKind.NO_WORDS
        self._level = -math.inf
        self.configured()

    def configured(self) -> None:
        """Apply the client's turn detection settings from the next voice activity window on."""
        self._normal = speech_settings(self._services.settings.speech, self._context.turn_rules.detection)
        soonest_ms = min(self._normal.min_speech_ms, self._settings.pause_after_ms)
        self._sensitive = self._normal.model_copy(update={"min_speech_ms": soonest_ms})
        self.tune()

    def tune(self) -> None:
        """Set how long a sound must be to count as speech: shorter while speech would pause an audible reply."""
        state = self._state()
        sensitive = state.agent is AgentState.REPLYING and state.caller is CallerState.QUIET and self._replies.audible
        self._audio_input.settings = (
            self._sensitive if sensitive and self._context.turn_rules.pauses_replies else self._normal
        )

    def begin(self) -> None:
        """Forget the previous utterance, because a new one has begun."""
        self._end_of_turn = None
        self.rejected_as = SpeechKind.NO_WORDS

    def dismissed(self, end: int) -> None:
        """Update the background's level if the dismissed utterance was background speech.

        `end` is the sample (16 kHz) at which its speech ended.
        """
        if self.rejected_as is SpeechKind.BACKGROUND:
            self._audio_input.background_dismissed(self._level, end)

    def await_words(self, revision: int, end_of_turn: EndOfTurnRequest) -> None:
        """Send `TranscriptReady` to the turn machine when the transcript is available, or all attempts have failed.

        Nothing is sent if the turn machine does not need to know whether the utterance addresses the agent.

        Args:
            revision: The revision that is transcribed.
            end_of_turn: The request that transcribes it.
        """
        if self._state().barge_in_check is not BargeInCheck.NOT_NEEDED:
            self._end_of_turn = end_of_turn
            end_of_turn.transcript.add_done_callback(lambda transcript: self._transcribed(revision, transcript))

    def words_overdue(self, revision: int) -> None:
        """If speech-to-text currently fails, tell the turn machine that the utterance addresses the agent.

        Does nothing unless the turn machine has marked its wait for the transcript as overdue. The caller may have said
        something to the agent, which must not be ignored because of a failure of the server.

        Args:
            revision: The revision that waits for its transcript.
        """
        if (
            self._state().barge_in_check is BargeInCheck.OVERDUE
            and self._end_of_turn
            and self._end_of_turn.failures.active
        ):
            self._post(TranscriptReady(revision, addressed=True, processed=self._audio_input.processed))

    def interim_transcribed(self, latest: str, stable: str) -> None:
        """Tell the turn machine (`InterimReady`) if an interim transcript shows whether the caller addresses the agent.

        Words that are not stable may be wrong, so they only keep the reply paused and do not end it. A stop command
        ("Stop.") always ends it.

        Args:
            latest: All words of the transcript.
            stable: The words at the beginning of the utterance that two transcripts in a row agreed on.
        """
        state = self._state()
        if state.barge_in_check is BargeInCheck.NOT_NEEDED:
            return
        language = self._services.settings.stt.main_language
        stopped = has_stop_word(latest, self._settings, language) and not self._is_background(latest)
        addressed = self._addresses_agent(latest)
        # The stable words may be the first half of a backchannel: "I" of "I see".
        if stopped or (addressed and stable and self._addresses_agent(stable)):
            self._post(InterimReady(state.revision, addressed=True))
        elif not addressed:
            self._post(InterimReady(state.revision, addressed=False))

    def _transcribed(self, revision: int, transcript: asyncio.Future[Transcript]) -> None:
        if transcript.cancelled():
            return  # the caller continued; the next end-of-turn request transcribes the whole utterance
        addressed = transcript.exception() is not None or self._words_address_agent(transcript.result())
        self._post(TranscriptReady(revision, addressed, self._audio_input.processed))

    def _words_address_agent(self, transcript: Transcript) -> bool:
        """Return True if the final transcript of the utterance addresses the agent."""
        state, language = self._state(), self._services.settings.stt.main_language
        speech_ms = (state.speech_end - state.start) * 1000 / STT_RATE
        over_reply = self._agent_speech().interrupted and self._settings.min_words > 0
        unsure = not transcript.agreed and is_unsure(
            transcript.text, transcript.avg_logprob, speech_ms, self._settings, language=language
        )
        if over_reply and unsure:
            self.rejected_as = SpeechKind.NO_WORDS
            return False
        return self._addresses_agent(transcript.text)

    def _addresses_agent(self, text: str) -> bool:
        reading = classify_speech(
            text,
            self._agent_speech(),
            self._settings,
            self._services.settings.stt.main_language,
            speech_s=self._speech_s(),
        )
        if reading is SpeechKind.ADDRESSED and self._is_background(text):
            reading = SpeechKind.BACKGROUND
        if reading is not SpeechKind.ADDRESSED:
            self.rejected_as = reading
        return reading is SpeechKind.ADDRESSED

    def _is_background(self, text: str) -> bool:
        """Return True if level and words (`text`) of the current utterance show that it is background speech.

        Background speech comes from a television or from other people. A session that only transcribes has none.
        """
        if self._context.config.transcribes_only:
            return False
        self._level = self._audio_input.utterance_level(self._state().start)
        addressed = is_addressed(text, self._replies.asked, self._services.settings.stt.main_language)
        return self._audio_input.is_background(self._level, addressed=addressed)

    def _agent_speech(self) -> AgentSpeech:
        agent, rules = self._state().agent, self._context.turn_rules
        interrupting = agent is AgentState.PAUSED or (agent is AgentState.REPLYING and rules.pauses_replies)
        reply = self._replies.current
        if reply is None:
            return AgentSpeech("", interrupting, math.inf)
        text, left_s = reply.words_around(SPOKEN_BEFORE_S, SPOKEN_BEHIND_S)
        return AgentSpeech(text, interrupting, left_s, reply.played_s)

    def _speech_s(self) -> float:
        """Return the length of the utterance so far, in seconds."""
        state = self._state()
        end = self._audio_input.processed if state.caller is CallerState.SPEAKING else state.speech_end
        return max(0, end - state.start) / STT_RATE
