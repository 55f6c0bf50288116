"""A person in a live conversation, as a pure state machine: server events in, commands for the client out.

The person speaks into a microphone or types, and the client plays the replies. When the server detects speech while a
reply plays, playback stops and the client reports how much was played. If the speech was only noise, the server sends
the rest of the reply and playback continues.
"""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass, replace
from math import ceil

from openai.types.realtime import (
    ConversationItemInputAudioTranscriptionCompletedEvent as Transcribed,
)
from openai.types.realtime import InputAudioBufferSpeechStartedEvent as SpeechStarted
from openai.types.realtime import RealtimeErrorEvent as ServerError
from openai.types.realtime import RealtimeServerEvent as ServerEvent
from openai.types.realtime import ResponseAudioDeltaEvent as AudioDelta
from openai.types.realtime import ResponseAudioTranscriptDeltaEvent as TranscriptDelta
from openai.types.realtime import ResponseDoneEvent as ResponseDone
from pydantic import ValidationError

from loadtest.callers.loudspeaker import Loudspeaker
from loadtest.callers.resume_state import Position
from loadtest.callers.scripted_caller import Truncate
from loadtest.results.turn_record import ServerReport, TurnOutcome, TurnRecord, stages_ms, unanswered_record
from loadtest.scenario.microphone import FRAME_MS

KEPT_FRAMES = 3000
"""Number of the newest microphone frames whose arrival times are kept: one minute."""


@dataclass(frozen=True, slots=True)
class Play:
    """Command to play audio of a reply: 24 kHz mono 16-bit PCM."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class StopPlayback:
    """Command to drop the audio that has not been played."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Command to show the server's transcript of an utterance of the person."""

    text: str


@dataclass(frozen=True, slots=True)
class ReplyText:
    """Command to show the next piece of the reply's transcript."""

    text: str


@dataclass(frozen=True, slots=True)
class TurnOver:
    """Command to show the result of a turn.

    Attributes:
        record: The turn, with its latency and stages if the person spoke.
        first_audio_ms: Time in milliseconds from a typed message to the first audible sample of its reply. None after
            a spoken one.
    """

    record: TurnRecord
    first_audio_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Command to show an error that the server reports."""

    text: str


Command = Play | StopPlayback | Heard | ReplyText | TurnOver | Fault | Truncate


class LiveCaller:
    """The client's side of a live conversation. All times are in seconds on the client's clock.

    Call `captured` for every microphone frame that is sent, `typed` for every typed message, and `take` for every
    server event.

    Args:
        output_latency_s: Time from a sample's delivery to the sound card until it is audible, in seconds.
    """

    def __init__(self, output_latency_s: float = 0.0) -> None:
        self._latency_s = output_latency_s
        self._frames = 0
        self._arrivals: deque[float] = deque(maxlen=KEPT_FRAMES)
        self._playback = Loudspeaker()
        self._response = ""
        self._item = ""
        self._answer = ""
        self._transcripts: dict[str, str] = {}
        self._typed_at: float | None = None
        self._item_from_s = 0.0
        self._continues = False

    def captured(self, now: float) -> None:
        """Note that one microphone frame (20 ms) was captured completely at `now`."""
        self._frames += 1
        self._arrivals.append(now)

    def typed(self, now: float) -> list[Command]:
        """Note that the person sent a typed message at `now`. It interrupts the reply that is playing, if any."""
        commands = self._interrupt(now)
        self._typed_at = now
        return commands

    def playing(self, now: float) -> bool:
        """Return True if audio of a reply is left to play at `now`."""
        return self._playback.playing(now)

    def position(self) -> Position | None:
        """Return how much of the newest reply the client has. None without a reply."""
        return self._at(self._playback.received_s) if self._item else None

    def resumed(self, heard: str | None) -> None:
        """Note that the session continues on another connection.

        `heard` are the words that the caller has heard of the newest reply, if the next response continues it; else
        None.
        """
        self._continues = heard is not None
        if heard is not None:
            self._answer = f"{heard} "

    def take(self, event: ServerEvent, now: float) -> list[Command]:
        """Handle a server event that arrived at `now`, and return what the client must do, in order."""
        match event:
            case SpeechStarted():
                return self._interrupt(now)
            case Transcribed(item_id=item_id, transcript=transcript):
                self._transcripts[item_id] = transcript.strip()
                return [Heard(transcript.strip())]
            case AudioDelta(response_id=key, item_id=item_id, delta=delta):
                if key != self._response:
                    self._begin(key)
                if item_id != self._item:
                    self._item, self._item_from_s = item_id, self._playback.received_s
                pcm = base64.b64decode(delta)
                self._playback.receive(pcm, now)
                return [Play(pcm)]
            case TranscriptDelta(response_id=key, delta=delta):
                if key != self._response:
                    self._begin(key)
                self._answer += delta
                return [ReplyText(delta)]
            case ResponseDone():
                return self._done(event)
            case ServerError(error=error):
                return [Fault(error.message)]
            case _:
                return []  # other events do not change what the person hears or sees

    def _begin(self, response: str) -> None:
        self._response = response
        if self._continues:
            self._continues = False
            return
        self._answer = ""
        self._playback = Loudspeaker(free_at=self._playback.ends_at)

    def _at(self, position_s: float) -> Position:
        return Position.at(self._item, position_s, self._item_from_s)

    def _interrupt(self, now: float) -> list[Command]:
        """Stop the reply that is playing. Return the commands, none if no reply is playing."""
        if not self._playback.playing(now):
            return []
        played_ms = self._at(self._playback.played_s(now)).ms
        self._playback.flush(now)
        return [StopPlayback(), Truncate(self._item, played_ms)]

    def _done(self, event: ResponseDone) -> list[Command]:
        extra = (event.model_extra or {}).get("rejoinder")
        try:
            report = ServerReport.model_validate(extra or {})
        except ValidationError as error:
            return [Fault(f"response.done: {error.error_count()} errors in the rejoinder field")]
        audible_at = self._audible_at(report)
        record = self._record(event, report, audible_at)
        first_audio_ms = None
        if self._typed_at is not None and audible_at is not None:
            first_audio_ms = round((audible_at - self._typed_at) * 1000, 1)
        self._typed_at = None
        return [TurnOver(record, first_audio_ms)]

    def _record(self, event: ResponseDone, report: ServerReport, audible_at: float | None) -> TurnRecord:
        usage = event.response.usage
        details = usage.input_token_details if usage else None
        record = replace(
            unanswered_record("", None, 1),
            heard=self._transcripts.get(report.item_id or "", ""),
            answered=self._answer.strip(),
            outcome=self._outcome(event, report).value,
            interrupted=report.interrupted,
            hedged=report.hedged,
            llm_total_ms=report.llm_total_ms,
            engines=report.engines,
            prompt_tokens=usage.input_tokens if usage else None,
            cached_tokens=details.cached_tokens if details else None,
        )
        spoken_at = self._captured_at(report.speech_end_ms)
        if audible_at is None or spoken_at is None:
            return record
        voice_to_voice_ms = round((audible_at - spoken_at) * 1000, 1)
        return replace(record, voice_to_voice_ms=voice_to_voice_ms, stages_ms=stages_ms(report, voice_to_voice_ms, 0.0))

    def _outcome(self, event: ResponseDone, report: ServerReport) -> TurnOutcome:
        if self._playback.began_at is None or event.response.id != self._response:
            return TurnOutcome.UNANSWERED
        if report.interrupted:
            return TurnOutcome.INTERRUPTED
        return TurnOutcome.ANSWERED if event.response.status == "completed" else TurnOutcome.FAILED

    def _audible_at(self, report: ServerReport) -> float | None:
        """Return the time at which the first sample of the answer is audible, or None if none was received."""
        at = self._playback.audible_at((report.answer_from_ms or 0.0) / 1000)
        return None if at is None else at + self._latency_s

    def _captured_at(self, stream_ms: float | None) -> float | None:
        """Return when the frame with this position of the microphone's stream (in ms) was captured completely.

        The result is None if the position is unknown or more than a minute old.
        """
        if stream_ms is None:
            return None
        index = max(1, ceil(stream_ms / FRAME_MS)) - 1 - (self._frames - len(self._arrivals))
        return self._arrivals[index] if 0 <= index < len(self._arrivals) else None
