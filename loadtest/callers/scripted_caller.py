"""A caller's side of one conversation, without input or output: server events with their time in, decisions out.

The caller speaks the lines in order. The next line begins a think time after the reply to the last one has been heard
to its end, or, if it is a barge-in, a given time after that reply began to sound. Meanwhile the microphone sends
silence. The client behaves as a real one: when the server hears speech while a reply plays, it silences the playback
and says how much of the reply was played; if that speech was none, the server goes on, and so does the playback.

A line is a turn, and a turn has one reply: the reply to the last utterance that the server took from the line. If it
took a pause inside the line for its end, the reply to the first half was premature; it is counted, not measured.
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

from loadtest.callers.scripted_turn import ReceivedReply, ScriptedTurn
from loadtest.results.turn_record import ServerReport, TurnRecord, unspoken
from loadtest.scenario.clips import Clip
from loadtest.scenario.microphone import Microphone
from rejoinder.core.audio.pcm import WIRE_RATE

# Silence before the first line: a microphone is open before somebody speaks, and detectors settle on it.
LEAD_IN_S = 0.5
# After the last reply the line stays open this long for what is still on its way (a late transcript).
LINGER_S = 0.3


@dataclass(frozen=True, slots=True)
class ScriptedLine:
    """A clip to speak; `barge_in_s`: this long after the reply to the line before began to sound."""

    clip: Clip
    barge_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class ScriptedBehavior:
    """`think_s`: from the end of a reply to the next line. `timeout_s`: how long a caller waits for an answer.

    A caller who `leaves` hangs up when the reply to the last line begins.
    """

    think_s: float = 0.6
    timeout_s: float = 60.0
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tell the server that the listener heard `audio_end_ms` of a reply and no more."""

    item_id: str
    audio_end_ms: int


class ScriptedCaller:
    """Ask for the `next_frame` whenever `microphone.due`, `take` every event when it arrives, until `finished`."""

    def __init__(self, lines: list[ScriptedLine], behavior: ScriptedBehavior, began_at: float) -> None:
        self.lines = lines
        self.behavior = behavior
        self.microphone = Microphone(began_at)
        self.faults: list[str] = []
        self._turns: list[ScriptedTurn] = []
        self._over: dict[ScriptedTurn, float] = {}
        self._heard: dict[str, str] = {}
        self._replies: dict[str, ReceivedReply] = {}
        self._caller_heard = False
        self._ended = ""

    # -- the caller speaks -------------------------------------------------------------------------------------------

    def next_frame(self) -> bytes:
        """The PCM that leaves now; a line begins here when its time has come."""
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
        """How many turns nothing more can happen to: replies were heard to their end, interruptions answered."""
        return next((count for count in range(len(self._turns), 0, -1) if self._turns[count - 1] in self._over), 0)

    @property
    def finished(self) -> bool:
        if self.behavior.leaves and len(self._turns) == len(self.lines) and self._answers_last():
            return True
        if self.closed < len(self.lines):
            return False
        return not self.lines or self.microphone.due >= self._over[self._turns[-1]] + LINGER_S

    def _answers_last(self) -> bool:
        """Whether the reply to the last line sounds, and the ends of those before are known."""
        reply = self._turns[-1].reply if self._turns else None
        return reply is not None and reply.playback.began_at is not None and self._settled(self._turns[-1])

    def _next_line_at(self) -> float | None:
        """When the next line begins; None while that is not known, or none is left."""
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
        """Note when the turn's reply was heard to its end, or that it was waited for long enough."""
        reply = turn.reply
        if reply and reply.done_at is not None and not reply.cut and not self._caller_heard and self._settled(turn):
            over = max(reply.done_at, reply.playback.ends_at, turn.speech_ends)
            if over <= now:
                self._over[turn] = over
                return
        waiting_since = max(turn.speech_ends, reply.playback.ends_at if reply else 0.0)
        if now >= waiting_since + self.behavior.timeout_s:
            turn.given_up = True
            self._over[turn] = now

    def _settled(self, turn: ScriptedTurn) -> bool:
        """Whether the ends of all replies to the lines before are known, so that their outcomes no longer change."""
        before = self._turns[: self._turns.index(turn)]
        return all(reply.done_at is not None for known in before for reply in known.replies.values())

    # -- the server speaks -------------------------------------------------------------------------------------------

    def take(self, event: ServerEvent, now: float) -> Truncate | None:
        """Note an event that arrived now; returns what a client has to tell the server at once."""
        match event:
            case SpeechStarted():
                self._caller_heard = True
                return self._silence_playback(now)
            case SpeechStopped(item_id=item_id, audio_end_ms=end_ms):
                self._caller_heard = False
                self._utterance(item_id, end_ms)
            case Cleared():
                self._no_utterance()
            case Transcribed(item_id=item_id, transcript=transcript):
                self._heard[item_id] = transcript.strip()
            case TranscriptionFailed(error=error):
                self.faults.append(f"transcription failed: {error.message}")
            case ServerError(error=error):
                self.faults.append(f"the server reports: {error.message}")
            case _:
                self._take_response(event, now)
        return None

    def round_trip(self, seconds: float) -> None:
        """A ping came back."""
        if self._turns:
            self._turns[-1].rtts_s.append(seconds)

    def _take_response(self, event: ServerEvent, now: float) -> None:
        match event:
            case ResponseCreated(response=response):
                reply = self._replies[response.id or ""] = ReceivedReply()
                turn = next((turn for turn in reversed(self._turns) if turn.items), None)
                if turn and not turn.given_up:
                    turn.replies.setdefault(turn.items[-1], reply)
            case AudioDelta(response_id=key, item_id=item_id, delta=delta) if key in self._replies:
                self._replies[key].item_id = item_id
                self._resumed(self._replies[key])
                self._replies[key].playback.receive(base64.b64decode(delta), now)
            case TranscriptDelta(response_id=key, delta=delta) if key in self._replies:
                self._replies[key].transcript += delta
            case TranscriptDone(response_id=key, transcript=transcript) if key in self._replies:
                self._replies[key].transcript = transcript
            case ResponseDone(response=response) if response.id in self._replies:
                self._done(self._replies[response.id], event, now)
            case _:
                pass  # the other events say nothing that a turn's record holds

    def _utterance(self, item_id: str, end_ms: int) -> None:
        """The server took an utterance: it belongs to the last line that began before it ended."""
        end = end_ms * WIRE_RATE // 1000
        turn = next((turn for turn in reversed(self._turns) if turn.spoken.start < end), None)
        if turn:
            turn.items.append(item_id)
        self._ended = item_id

    def _no_utterance(self) -> None:
        """The utterance that has just ended was none after all."""
        for turn in self._turns:
            turn.items = [item for item in turn.items if item != self._ended]

    def _resumed(self, reply: ReceivedReply) -> None:
        """More of a reply that was silenced: it goes on where it was heard last."""
        if reply.cut:
            reply.cut = False
            for turn in self._turns:
                if turn.reply is reply:
                    turn.stop_s = None

    def _done(self, reply: ReceivedReply, event: ResponseDone, now: float) -> None:
        reply.done_at = now
        reply.failed = event.response.status == "failed"
        reply.kept = _kept(event)
        usage = event.response.usage
        if usage and usage.input_tokens and usage.input_token_details:
            reply.prompt_tokens, reply.cached_tokens = usage.input_tokens, usage.input_token_details.cached_tokens
        extra = (event.model_extra or {}).get("rejoinder")
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
        """The server says that the response answered no turn (an apology between turns)."""
        for turn in self._turns:
            turn.replies = {item: known for item, known in turn.replies.items() if known is not reply}

    def _silence_playback(self, now: float) -> Truncate | None:
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
        return Truncate(playing.item_id, int(played_s * 1000))

    # -- what it came to ---------------------------------------------------------------------------------------------

    @property
    def replies(self) -> list[ReceivedReply]:
        """Every response that sounded, in order."""
        return [reply for reply in self._replies.values() if reply.playback.began_at is not None]

    @property
    def turns(self) -> Sequence[ScriptedTurn]:
        """One for each line that was begun, in order."""
        return self._turns

    def records(self, run: int = 1) -> list[TurnRecord]:
        """One a line, in order, whether it was reached or not."""
        last = len(self._turns) - 1
        begun = [turn.record(self._heard, number == last, run) for number, turn in enumerate(self._turns)]
        rest = [unspoken(line.clip.name, line.clip.expected, run) for line in self.lines[len(begun) :]]
        return begun + rest


def _kept(event: ResponseDone) -> str:
    """The text of a response's items, as the conversation has them when it ends."""
    items = [item for item in event.response.output or [] if isinstance(item, AssistantMessage)]
    return "".join(part.transcript or part.text or "" for item in items for part in item.content or [])
