"""A hesitant caller, without input or output: it speaks its script in real time and keeps all that arrives.

The stream's frames are its clock: what the server says about the caller's audio (when an utterance began and ended) is
in the same milliseconds. Audio is read for its marks (rejoinder/core/measuring/audio_watermark.py) as it is
complete, and not kept.
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
from rejoinder.core.measuring import audio_watermark as marking

ANSWER_S = 12.0
"""A turn is waited for so long after its last frame, and so long after the last event of its answer."""


class HesitantPhase(Enum):
    """TALKING: from a turn's first frame to its answer's end."""

    THINKING = "thinking"
    TALKING = "talking"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class SpokenPhrase:
    """A phrase of turn `turn` was really heard by the microphone from `start_s` to `end_s` of the stream."""

    turn: int
    start_s: float
    end_s: float
    last: bool


@dataclass(slots=True)
class TakenUtterance:
    """What the server took as one utterance: its edges in seconds of the stream, and its transcript, if it came."""

    item_id: str
    start_s: float
    end_s: float
    transcript: str | None = None


@dataclass(slots=True)
class ReceivedAnswer:
    """A response; `item_id`: the newest utterance taken before it began, None if none was. `marks`: of its sound."""

    response_id: str
    item_id: str | None
    words: str = ""
    marks: list[int | None] = field(default_factory=list)
    status: str = ""
    reported: str | None = None
    unread: bytearray = field(default_factory=bytearray, repr=False)

    def settle(self) -> None:
        """Read what arrived since this was last done."""
        self.marks += marking.read(bytes(self.unread))
        self.unread.clear()


class HesitantCaller:
    """`leaving` at every deadline, `take` for every message, until `over`."""

    def __init__(self, speech: Speech, script: Sequence[TurnScript]) -> None:
        self.spoken: list[SpokenPhrase] = []
        self.utterances: dict[str, TakenUtterance] = {}
        self.answers: dict[str, ReceivedAnswer] = {}
        self.unanswered: set[int] = set()
        self.faults: list[str] = []
        self._speech = speech
        self._script = script
        self._saying: deque[bytes] = deque()
        self._frames = 0
        self._turns = 0
        self._phase = HesitantPhase.THINKING if script else HesitantPhase.OVER
        self._next_at = script[0].think_s if script else 0.0
        self._news_at = 0.0
        self._begun: dict[str, float] = {}
        self._newest: str | None = None

    @property
    def now(self) -> float:
        """The stream's time."""
        return self._frames * FRAME_S

    @property
    def over(self) -> bool:
        return self._phase is HesitantPhase.OVER

    # -- the mouth -------------------------------------------------------------------------------------------------

    def leaving(self, due: float) -> Sequence[bytes]:
        """The next frame: callers stay unmuted, since silence is what ends a turn."""
        if not self._saying:
            self._live()
        message = self._saying.popleft() if self._saying else self._speech.silence
        self._frames += 1
        return (message,)

    def _live(self) -> None:
        if self._phase is HesitantPhase.THINKING and self.now >= self._next_at:
            self._speak(self._script[self._turns])
        elif self._phase is HesitantPhase.TALKING:
            self._await()

    def _speak(self, turn: TurnScript) -> None:
        at = self.now
        for number, phrase in enumerate(turn.phrases):
            said = self._speech.utterances[phrase]
            last = number == len(turn.pauses)
            self.spoken.append(SpokenPhrase(self._turns, at + said.speech_start_s, at + said.speech_end_s, last))
            # The pause lies between the edges of speech: the clips' own margins are a part of it.
            quiet = 0 if last else self._quiet(turn, number)
            self._saying.extend((*said.messages, *[self._speech.silence] * quiet))
            at += (len(said.messages) + quiet) * FRAME_S
        self._turns += 1
        self._phase = HesitantPhase.TALKING
        self._news_at = at

    def _quiet(self, turn: TurnScript, number: int) -> int:
        """Frames of silence behind a phrase."""
        said, following = (self._speech.utterances[phrase] for phrase in turn.phrases[number : number + 2])
        margins_s = said.seconds - said.speech_end_s + following.speech_start_s
        return max(0, round((turn.pauses[number] - margins_s) / FRAME_S))

    def _await(self) -> None:
        answer = self._answer(self._turns - 1)
        if answer is not None and answer.status == "completed":
            self._go_on()
        elif self.now >= self._news_at + ANSWER_S:
            self.unanswered.add(self._turns - 1)
            self._go_on()

    def _go_on(self) -> None:
        if self._turns == len(self._script):
            self._phase = HesitantPhase.OVER
        else:
            self._phase = HesitantPhase.THINKING
            self._next_at = self.now + self._script[self._turns].think_s

    def _answer(self, turn: int) -> ReceivedAnswer | None:
        """The newest answer to the utterance with the turn's last words."""
        end_s = max(spoken.end_s for spoken in self.spoken if spoken.turn == turn)
        items = {taken.item_id for taken in self.utterances.values() if taken.end_s >= end_s}
        return next((known for known in reversed(self.answers.values()) if known.item_id in items), None)

    # -- the ear ---------------------------------------------------------------------------------------------------

    def take(self, message: bytes, arrived: float) -> None:
        """A server event."""
        event = orjson.loads(message)
        handler = self._HANDLERS.get(event["type"])
        if handler:
            self._news_at = max(self._news_at, self.now)
            handler(self, event)

    def hang_up(self) -> None:
        """The call is over: read what is left; turns that were not spoken were not answered."""
        for answer in self.answers.values():
            answer.settle()
        first_open = self._turns - 1 if self._phase is HesitantPhase.TALKING else self._turns
        self.unanswered |= set(range(first_open, len(self._script)))

    def _started(self, event: dict[str, Any]) -> None:
        self._begun[event["item_id"]] = event["audio_start_ms"] / 1000

    def _stopped(self, event: dict[str, Any]) -> None:
        key = event["item_id"]
        self.utterances[key] = TakenUtterance(key, self._begun.pop(key, 0.0), event["audio_end_ms"] / 1000)

    def _cleared(self, event: dict[str, Any]) -> None:
        if self.utterances:
            self.utterances.popitem()  # the one that has just stopped was none

    def _committed(self, event: dict[str, Any]) -> None:
        self._newest = event["item_id"]

    def _transcribed(self, event: dict[str, Any]) -> None:
        if event["item_id"] in self.utterances:
            self.utterances[event["item_id"]].transcript = event["transcript"]

    def _created(self, event: dict[str, Any]) -> None:
        key = event["response"]["id"]
        self.answers[key] = ReceivedAnswer(key, self._newest)

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
        answer.settle()

    def _fault(self, event: dict[str, Any]) -> None:
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
        "error": _fault,
    }
