"""A scripted caller as a pure state machine: server events with arrival times in, frames and commands out.

The caller speaks its lines in order, and the microphone sends silence between them. A line normally starts one think
time after the reply to the previous line was played to its end. A barge-in line starts a given time after playback of
that reply began.

The client behaves like a real one. When the server detects speech while a reply plays, the client stops the playback
and reports how much of the reply was played. If the speech was only noise, the server resumes the reply and the client
continues the playback.

One line is one turn, and one turn has one reply: the reply to the last utterance that the server detected in the line.
If the server mistook a pause inside the line for its end, the reply to the first part is premature. Premature replies
are counted but not measured.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from openai.types.realtime import (
    ConversationItemInputAudioTranscriptionCompletedEvent as Transcribed,
)
from openai.types.realtime import (
    ConversationItemInputAudioTranscriptionFailedEvent as TranscriptionFailed,
)
from openai.types.realtime import InputAudioBufferClearedEvent as Cleared
from openai.types.realtime import InputAudioBufferSpeechStartedEvent as SpeechStarted
from openai.types.realtime import InputAudioBufferSpeechStoppedEvent as SpeechStopped
from openai.types.realtime import RealtimeConversationItemAssistantMessage as AssistantMessage
from openai.types.realtime import RealtimeErrorEvent as ServerError
from openai.types.realtime import RealtimeServerEvent as ServerEvent
from openai.types.realtime import ResponseAudioDeltaEvent as AudioDelta
from openai.types.realtime import ResponseAudioTranscriptDeltaEvent as TranscriptDelta
from openai.types.realtime import ResponseAudioTranscriptDoneEvent as TranscriptDone
from openai.types.realtime import ResponseCreatedEvent as ResponseCreated
from openai.types.realtime import ResponseDoneEvent as ResponseDone
from pydantic import ValidationError

from loadtest.callers.resume_state import Position
from loadtest.callers.scripted_turn import ReceivedReply, ScriptedTurn
from loadtest.results.turn_record import ServerReport, TurnRecord, unanswered_record
from loadtest.scenario.clips import Clip
from loadtest.scenario.microphone import Microphone
from rejoinder.core.audio.pcm import WIRE_RATE

# Silence before the first line, in seconds. A real microphone is open before its user speaks, and detectors adapt to
# the silence.
LEAD_IN_S = 0.5
# Wait after the last reply, in seconds, for events that are still in transit, such as a late transcript.
LINGER_S = 0.3


@dataclass(frozen=True, slots=True)
class ScriptedLine:
    """A clip to speak.

    Attributes:
        clip: The recording, with the positions at which its speech starts and ends.
        barge_in_s: Start of the line in seconds after playback of the previous line's reply started. With None the
            caller waits for the end of that reply.
    """

    clip: Clip
    barge_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class ScriptedBehavior:
    """How a scripted caller behaves.

    Attributes:
        think_s: Time from the end of a reply to the next line, in seconds.
        timeout_s: Time in seconds after which a turn is given up. It counts from the end of the line's speech, or from
            the end of the reply's audio received so far.
        leaves: True if the caller hangs up when playback of the last line's reply starts.
    """

    think_s: float = 0.6
    timeout_s: float = 60.0
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class Truncate:
    """Command to tell the server how much of a reply was played.

    Attributes:
        item_id: Conversation item of the reply.
        audio_end_ms: Length of the played audio in milliseconds.
    """

    item_id: str
    audio_end_ms: int


class ScriptedCaller:
    """A caller who speaks given lines. All times are in seconds on the client's clock.

    Call `next_frame` at every `microphone.due` and `take` for every event, until `finished`.

    Attributes:
        lines: The lines to speak.
        behavior: How the caller behaves.
        microphone: Source of the frames.
        faults: Problems during the conversation, one sentence each: server errors, failed transcriptions, malformed
            reports.
    """

    def __init__(self, lines: list[ScriptedLine], behavior: ScriptedBehavior, began_at: float) -> None:
        self.lines = lines
        self.behavior = behavior
        self.microphone = Microphone(began_at)
        self.faults: list[str] = []
        self._turns: list[ScriptedTurn] = []
        self._over: dict[ScriptedTurn, float] = {}
        self._transcripts: dict[str, str] = {}
        self._replies: dict[str, ReceivedReply] = {}
        self._speech_detected = False
        self._newest_item = ""
        self._continues: ReceivedReply | None = None

    # -- speaking: the frames that the caller sends ------------------------------------------------------------------

    def next_frame(self) -> bytes:
        """Return the 20 ms of PCM to send at `microphone.due`. Start the next line if it is due."""
        now = self.microphone.due
        if self._turns and self._turns[-1] not in self._over:
            self._close(self._turns[-1], now)
        due = self._next_line_at()
        if due is not None and due <= now:
            line = self.lines[len(self._turns)]
            self._turns.append(ScriptedTurn(self.microphone, self.microphone.speak(line.clip)))
        return self.microphone.frame()

    @property
    def closed(self) -> int:
        """Number of turns whose records are final, counted from the first: their reply was played or timed out."""
        return next((count for count in range(len(self._turns), 0, -1) if self._turns[count - 1] in self._over), 0)

    @property
    def finished(self) -> bool:
        """True if the conversation is over, so that no further frame is to be sent."""
        if self.behavior.leaves and len(self._turns) == len(self.lines) and self._answers_last():
            return True
        if self.closed < len(self.lines):
            return False
        return not self.lines or self.microphone.due >= self._over[self._turns[-1]] + LINGER_S

    def _answers_last(self) -> bool:
        """Return True if playback of the reply to the last line has started and all earlier replies are complete."""
        reply = self._turns[-1].reply if self._turns else None
        return reply is not None and reply.playback.began_at is not None and self._settled(self._turns[-1])

    def _next_line_at(self) -> float | None:
        """Return the time at which the next line starts. None if no line is left or the time is not known yet."""
        if len(self._turns) == len(self.lines):
            return None
        if not self._turns:
            return self.microphone.began_at + LEAD_IN_S
        turn = self._turns[-1]
        over = self._over.get(turn)
        due = None if over is None else over + self.behavior.think_s
        barge_in_s = self.lines[len(self._turns)].barge_in_s
        reply = turn.reply
        if barge_in_s is not None and reply and reply.playback.began_at is not None and not reply.cut:
            at = max(reply.playback.began_at + barge_in_s, turn.speech_ends)
            return at if due is None else min(due, at)
        return due

    def _close(self, turn: ScriptedTurn, now: float) -> None:
        """Close the turn if its reply was played to its end, or if no reply came within the timeout."""
        reply = turn.reply
        if reply and reply.done_at is not None and not reply.cut and not self._speech_detected and self._settled(turn):
            over = max(reply.done_at, reply.playback.ends_at, turn.speech_ends)
            if over <= now:
                self._over[turn] = over
                return
        waiting_since = max(turn.speech_ends, reply.playback.ends_at if reply else 0.0)
        if now >= waiting_since + self.behavior.timeout_s:
            turn.given_up = True
            self._over[turn] = now

    def _settled(self, turn: ScriptedTurn) -> bool:
        """Return True if all replies to lines before `turn` are complete, so that those lines' outcomes are final."""
        earlier = self._turns[: self._turns.index(turn)]
        return all(reply.done_at is not None for other in earlier for reply in other.replies.values())

    # -- handling events from the server -----------------------------------------------------------------------------

    def take(self, event: ServerEvent, now: float) -> Truncate | None:
        """Handle a server event that arrived at `now`, in seconds on the client's clock.

        Return the command to truncate the interrupted reply, which must be sent at once, or None.
        """
        match event:
            case SpeechStarted():
                self._speech_detected = True
                return self._silence_playback(now)
            case SpeechStopped(item_id=item_id, audio_end_ms=end_ms):
                self._speech_detected = False
                self._add_utterance(item_id, end_ms)
            case Cleared():
                self._remove_utterance()
            case Transcribed(item_id=item_id, transcript=transcript):
                self._transcripts[item_id] = transcript.strip()
            case TranscriptionFailed(error=error):
                self.faults.append(f"transcription failed: {error.message}")
            case ServerError(error=error):
                self.faults.append(f"the server reports: {error.message}")
            case _:
                self._take_response(event, now)
        return None

    def position(self) -> Position | None:
        """Return how much of the newest reply the caller has. None without a reply."""
        reply = next(reversed(self._replies.values()), None)
        return None if reply is None else reply.position(reply.playback.received_s)

    def resumed(self, heard: str | None) -> None:
        """Note that the session continues on another connection.

        `heard` are the words that the caller has heard of the newest reply, if the next response continues it; else
        None.
        """
        self._continues = None if heard is None else next(reversed(self._replies.values()), None)
        if self._continues and heard is not None:
            self._continues.transcript = f"{heard} "

    def round_trip(self, seconds: float) -> None:
        """Record the round-trip time of a ping, in seconds, for the current turn."""
        if self._turns:
            self._turns[-1].rtts_s.append(seconds)

    def _take_response(self, event: ServerEvent, now: float) -> None:
        match event:
            case ResponseCreated(response=response) if self._continues:
                self._replies[response.id or ""] = self._continues
                self._continues.continued, self._continues = True, None
            case ResponseCreated(response=response):
                reply = self._replies[response.id or ""] = ReceivedReply()
                turn = next((turn for turn in reversed(self._turns) if turn.items), None)
                if turn and not turn.given_up:
                    turn.replies.setdefault(turn.items[-1], reply)
            case AudioDelta(response_id=key, item_id=item_id, delta=delta) if key in self._replies:
                self._note_item(self._replies[key], item_id)
                self._note_resumed(self._replies[key])
                self._replies[key].playback.receive(base64.b64decode(delta), now)
            case TranscriptDelta(response_id=key, delta=delta) if key in self._replies:
                self._replies[key].transcript += delta
            case TranscriptDone(response_id=key, transcript=transcript) if key in self._replies:
                if not self._replies[key].continued:
                    self._replies[key].transcript = transcript
            case ResponseDone(response=response) if response.id in self._replies:
                self._note_done(self._replies[response.id], event, now)
            case _:
                pass  # other events do not contribute to a turn's record

    def _add_utterance(self, item_id: str, end_ms: int) -> None:
        """Assign an utterance that the server detected to the last line that started before the utterance ended.

        Args:
            item_id: Id of the utterance.
            end_ms: End of the utterance in milliseconds of the microphone's stream.
        """
        end = end_ms * WIRE_RATE // 1000
        turn = next((turn for turn in reversed(self._turns) if turn.spoken.start < end), None)
        if turn:
            turn.items.append(item_id)
        self._newest_item = item_id

    def _remove_utterance(self) -> None:
        """Remove the newest utterance from its turn, because the server has discarded it as noise."""
        for turn in self._turns:
            turn.items = [item for item in turn.items if item != self._newest_item]

    @staticmethod
    def _note_item(reply: ReceivedReply, item_id: str) -> None:
        """Note the item of the audio that follows. A reply that continues on another connection has two items."""
        if reply.item_id != item_id:
            reply.item_id, reply.item_from_s = item_id, reply.playback.received_s

    def _note_resumed(self, reply: ReceivedReply) -> None:
        """Note that the server sends more audio of a reply. If the reply counted as interrupted, it no longer does."""
        if reply.cut:
            reply.cut = False
            for turn in self._turns:
                if turn.reply is reply:
                    turn.stop_s = None

    def _note_done(self, reply: ReceivedReply, event: ResponseDone, now: float) -> None:
        reply.done_at = now
        reply.failed = event.response.status == "failed"
        reply.kept = _history_text(event)
        usage = event.response.usage
        if usage and usage.input_tokens and usage.input_token_details:
            reply.prompt_tokens, reply.cached_tokens = usage.input_tokens, usage.input_token_details.cached_tokens
        extra = None if reply.continued else (event.model_extra or {}).get("rejoinder")
        try:
            reply.report = None if extra is None else ServerReport.model_validate(extra)
        except ValidationError as error:
            self.faults.append(f"response.done: {error.error_count()} errors in the rejoinder field")
            return
        if reply.report:
            reply.cut |= reply.report.interrupted
            if reply.report.item_id is None and not reply.cut:
                self._detach(reply)

    def _detach(self, reply: ReceivedReply) -> None:
        """Remove a response from its turn, because the server reports that the response answers no utterance.

        An apology is an example.
        """
        for turn in self._turns:
            turn.replies = {item: other for item, other in turn.replies.items() if other is not reply}

    def _silence_playback(self, now: float) -> Truncate | None:
        """Stop the reply that is playing and return the truncation to send. Return None if no reply is playing."""
        playing = next((reply for reply in self._replies.values() if reply.playback.playing(now)), None)
        if playing is None:
            return None
        played_s = playing.playback.played_s(now)
        playing.playback.flush(now)
        playing.cut = True
        latest = self._turns[-1] if self._turns else None
        cut = next((turn for turn in self._turns if turn.reply is playing), None)
        if latest and cut and cut is not latest:
            cut.stop_s = now - latest.speech_begins
        return Truncate(playing.item_id, playing.position(played_s).ms)

    # -- results of the conversation ---------------------------------------------------------------------------------

    @property
    def replies(self) -> list[ReceivedReply]:
        """Every response with audio, in the order in which the server created them."""
        return [reply for reply in dict.fromkeys(self._replies.values()) if reply.playback.began_at is not None]

    @property
    def turns(self) -> Sequence[ScriptedTurn]:
        """Turns of the lines that the caller has started to speak, in order."""
        return self._turns

    def records(self, run: int = 1) -> list[TurnRecord]:
        """Return one record for each line, in order. Lines that the caller never started are unanswered.

        Args:
            run: Number of the repetition, from 1, to note in the records.
        """
        last = len(self._turns) - 1
        begun = [turn.record(self._transcripts, number == last, run) for number, turn in enumerate(self._turns)]
        rest = [unanswered_record(line.clip.name, line.clip.expected, run) for line in self.lines[len(begun) :]]
        return begun + rest


def _history_text(event: ResponseDone) -> str:
    """Return the text that the conversation history keeps of a response, from its `response.done` event."""
    items = [item for item in event.response.output or [] if isinstance(item, AssistantMessage)]
    return "".join(part.transcript or part.text or "" for item in items for part in item.content or [])
