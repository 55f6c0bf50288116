"""A hesitant caller, who pauses inside turns, as a state machine without I/O.

The caller speaks a script in real time and records what the server sends. Its time is the length of the audio sent so
far. The server reports starts and ends of utterances as positions in this audio, so both can be compared. The caller
reads the watermarks in an answer's audio (`rejoinder.core.measuring.audio_watermark`) and drops the audio.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

import orjson

from loadtest.benches.drafts.script import TurnScript
from loadtest.scenario.utterances import FRAME_S, Speech
from rejoinder.core.measuring import audio_watermark

ANSWER_S = 12.0
"""Timeout for an answer, in seconds after the turn's last frame or the last event from the server."""


class HesitantPhase(Enum):
    """Phase of the call.

    Attributes:
        THINKING: The pause before a turn.
        TALKING: The caller speaks a turn or waits for its answer.
        OVER: The last turn has ended.
    """

    THINKING = "thinking"
    TALKING = "talking"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class SpokenPhrase:
    """A phrase of the script that the caller has spoken.

    Attributes:
        turn: Number of the turn that contains the phrase, from 0.
        start_s: Start of its speech, in seconds of the caller's audio stream.
        end_s: End of its speech, in seconds of the caller's audio stream.
        last: True if the phrase is the turn's last one.
    """

    turn: int
    start_s: float
    end_s: float
    last: bool


@dataclass(slots=True)
class DetectedUtterance:
    """One utterance as the server detected it.

    Attributes:
        item_id: Id of the utterance's conversation item.
        start_s: Detected start, in seconds of the caller's audio stream.
        end_s: Detected end, in seconds of the caller's audio stream.
        transcript: Transcript of the utterance. None until it is received.
    """

    item_id: str
    start_s: float
    end_s: float
    transcript: str | None = None


@dataclass(slots=True)
class ReceivedAnswer:
    """A response from the server.

    Attributes:
        response_id: Id of the response.
        item_id: Id of the utterance that was committed last when the response began. None if there was none.
        words: Transcript of the response.
        marks: Watermark of each 10 ms window of the response's audio: the length of the answered speech in tenths of a
            second. None for a window without a watermark.
        status: Status in `response.done`. Empty until then.
        reported: Id of the utterance that the response answers, as reported by the server.
        unread: Received audio (24 kHz 16-bit PCM) whose watermarks have not been read yet.
    """

    response_id: str
    item_id: str | None
    words: str = ""
    marks: list[int | None] = field(default_factory=list)
    status: str = ""
    reported: str | None = None
    unread: bytearray = field(default_factory=bytearray, repr=False)

    def read_marks(self) -> None:
        """Append to `marks` the watermarks of the audio in `unread`, and clear `unread`."""
        self.marks += audio_watermark.read(bytes(self.unread))
        self.unread.clear()


class HesitantCaller:
    """State machine of one caller. Until `over` is true, call `leaving` for every frame and `take` for every event.

    Attributes:
        spoken: The phrases that the caller has spoken.
        utterances: The utterances that the server detected, by item id.
        answers: The responses, by id.
        unanswered: Numbers, from 0, of the turns without a complete answer.
        faults: Messages of the server's error events.
    """

    def __init__(self, speech: Speech, script: Sequence[TurnScript]) -> None:
        self.spoken: list[SpokenPhrase] = []
        self.utterances: dict[str, DetectedUtterance] = {}
        self.answers: dict[str, ReceivedAnswer] = {}
        self.unanswered: set[int] = set()
        self.faults: list[str] = []
        self._speech = speech
        self._script = script
        self._outgoing: deque[bytes] = deque()
        self._frames = 0
        self._turns = 0
        self._phase = HesitantPhase.THINKING if script else HesitantPhase.OVER
        self._next_at = script[0].think_s if script else 0.0
        self._last_event_at = 0.0
        self._started_s: dict[str, float] = {}
        self._committed_item: str | None = None

    @property
    def now(self) -> float:
        """Seconds of audio sent so far. This is the time of the caller's audio stream."""
        return self._frames * FRAME_S

    @property
    def over(self) -> bool:
        """True if the last turn has ended."""
        return self._phase is HesitantPhase.OVER

    # -- sending audio to the server -------------------------------------------------------------------------------

    def leaving(self, due: float) -> Sequence[bytes]:
        """Return the messages to send for the next frame of audio: always one, with speech or silence.

        The server needs the silence to end a turn. `due` (the frame's deadline) is not used, because the caller's time
        is the length of the audio sent.
        """
        if not self._outgoing:
            self._advance()
        message = self._outgoing.popleft() if self._outgoing else self._speech.silence
        self._frames += 1
        return (message,)

    def _advance(self) -> None:
        """Start the next turn if it is due, or end the current turn if it is answered or has timed out."""
        if self._phase is HesitantPhase.THINKING and self.now >= self._next_at:
            self._speak(self._script[self._turns])
        elif self._phase is HesitantPhase.TALKING:
            self._check_answer()

    def _speak(self, turn: TurnScript) -> None:
        at = self.now
        for number, phrase in enumerate(turn.phrases):
            clip = self._speech.utterances[phrase]
            last = number == len(turn.pauses)
            self.spoken.append(SpokenPhrase(self._turns, at + clip.speech_start_s, at + clip.speech_end_s, last))
            silent_frames = 0 if last else self._silent_frames(turn, number)
            self._outgoing.extend((*clip.messages, *[self._speech.silence] * silent_frames))
            at += (len(clip.messages) + silent_frames) * FRAME_S
        self._turns += 1
        self._phase = HesitantPhase.TALKING
        self._last_event_at = at

    def _silent_frames(self, turn: TurnScript, number: int) -> int:
        """Return the number of silent frames to send after phrase number `number` of the turn.

        The recordings of this phrase and the next have some silence at their ends. It counts toward the length of the
        pause.
        """
        clip, following = (self._speech.utterances[phrase] for phrase in turn.phrases[number : number + 2])
        margins_s = clip.seconds - clip.speech_end_s + following.speech_start_s
        return max(0, round((turn.pauses[number] - margins_s) / FRAME_S))

    def _check_answer(self) -> None:
        """End the turn if its answer is complete. After `ANSWER_S` without one, end the turn as unanswered."""
        answer = self._answer(self._turns - 1)
        if answer is not None and answer.status == "completed":
            self._end_turn()
        elif self.now >= self._last_event_at + ANSWER_S:
            self.unanswered.add(self._turns - 1)
            self._end_turn()

    def _end_turn(self) -> None:
        if self._turns == len(self._script):
            self._phase = HesitantPhase.OVER
        else:
            self._phase = HesitantPhase.THINKING
            self._next_at = self.now + self._script[self._turns].think_s

    def _answer(self, turn: int) -> ReceivedAnswer | None:
        """Return the newest answer to an utterance that includes the end of turn number `turn`; None if there is none.

        An answer to an utterance that ended in a pause inside the turn does not count.
        """
        end_s = max(spoken.end_s for spoken in self.spoken if spoken.turn == turn)
        items = {utterance.item_id for utterance in self.utterances.values() if utterance.end_s >= end_s}
        return next((answer for answer in reversed(self.answers.values()) if answer.item_id in items), None)

    # -- receiving events from the server --------------------------------------------------------------------------

    def take(self, message: bytes, arrived: float) -> None:
        """Process one server event, given as JSON. `arrived` (the time of its arrival) is not used."""
        event = orjson.loads(message)
        handler = self._HANDLERS.get(event["type"])
        if handler:
            self._last_event_at = max(self._last_event_at, self.now)
            handler(self, event)

    def hang_up(self) -> None:
        """End the call.

        Read the watermarks of the remaining audio. Count the turn in progress and the turns not spoken as unanswered.
        """
        for answer in self.answers.values():
            answer.read_marks()
        first_open = self._turns - 1 if self._phase is HesitantPhase.TALKING else self._turns
        self.unanswered |= set(range(first_open, len(self._script)))

    def _started(self, event: dict[str, Any]) -> None:
        self._started_s[event["item_id"]] = event["audio_start_ms"] / 1000

    def _stopped(self, event: dict[str, Any]) -> None:
        key = event["item_id"]
        self.utterances[key] = DetectedUtterance(key, self._started_s.pop(key, 0.0), event["audio_end_ms"] / 1000)

    def _cleared(self, event: dict[str, Any]) -> None:
        if self.utterances:
            self.utterances.popitem()  # the server discarded its newest utterance as noise

    def _committed(self, event: dict[str, Any]) -> None:
        self._committed_item = event["item_id"]

    def _transcribed(self, event: dict[str, Any]) -> None:
        if event["item_id"] in self.utterances:
            self.utterances[event["item_id"]].transcript = event["transcript"]

    def _created(self, event: dict[str, Any]) -> None:
        key = event["response"]["id"]
        self.answers[key] = ReceivedAnswer(key, self._committed_item)

    def _audio(self, event: dict[str, Any]) -> None:
        key = event["response_id"]
        answer = self.answers.setdefault(key, ReceivedAnswer(key, None))
        answer.unread += base64.b64decode(event["delta"])

    def _words(self, event: dict[str, Any]) -> None:
        key = event["response_id"]
        self.answers.setdefault(key, ReceivedAnswer(key, None)).words += event["delta"]

    def _done(self, event: dict[str, Any]) -> None:
        response = event["response"]
        answer = self.answers.setdefault(response["id"], ReceivedAnswer(response["id"], None))
        answer.status = response["status"]
        answer.reported = event.get("rejoinder", {}).get("item_id")
        answer.read_marks()

    def _error(self, event: dict[str, Any]) -> None:
        self.faults.append(str(event.get("error", {}).get("message")))

    _HANDLERS: ClassVar[dict[str, Callable[[HesitantCaller, dict[str, Any]], None]]] = {
        "input_audio_buffer.speech_started": _started,
        "input_audio_buffer.speech_stopped": _stopped,
        "input_audio_buffer.cleared": _cleared,
        "input_audio_buffer.committed": _committed,
        "conversation.item.input_audio_transcription.completed": _transcribed,
        "response.created": _created,
        "response.output_audio.delta": _audio,
        "response.output_audio_transcript.delta": _words,
        "response.done": _done,
        "error": _error,
    }
