"""A caller's side of one conversation, without input or output: server events with their time in, decisions out.

The caller speaks the lines in order. The next line begins a think time after the reply to the last one has been heard
to its end, or, if it is a barge-in, a given time after that reply began to sound. Meanwhile the microphone sends
silence. The client behaves as a real one: when the server hears speech while a reply plays, it silences the playback
and says how much of the reply was played.

A line is a turn, and a turn has one reply: the reply to the last utterance that the server took from the line. If it
took a pause inside the line for its end, the reply to the first half was premature; it is counted, not measured.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from statistics import median

from openai.types.realtime import (
    ConversationItemInputAudioTranscriptionCompletedEvent as Transcribed,
)
from openai.types.realtime import (
    ConversationItemInputAudioTranscriptionFailedEvent as TranscriptionFailed,
)
from openai.types.realtime import InputAudioBufferSpeechStartedEvent as SpeechStarted
from openai.types.realtime import InputAudioBufferSpeechStoppedEvent as SpeechStopped
from openai.types.realtime import RealtimeErrorEvent as ServerError
from openai.types.realtime import RealtimeServerEvent as ServerEvent
from openai.types.realtime import ResponseAudioDeltaEvent as AudioDelta
from openai.types.realtime import ResponseAudioTranscriptDeltaEvent as TranscriptDelta
from openai.types.realtime import ResponseAudioTranscriptDoneEvent as TranscriptDone
from openai.types.realtime import ResponseCreatedEvent as ResponseCreated
from openai.types.realtime import ResponseDoneEvent as ResponseDone
from pydantic import ValidationError

from loadtest.clips import Clip
from loadtest.microphone import Microphone, Spoken
from loadtest.playback import Playback
from loadtest.turn_record import Outcome, ServerReport, TurnRecord, stages_ms, unspoken
from loadtest.wer import word_error_rate
from rejoinder.core.audio import WIRE_RATE

# Silence before the first line: a microphone is open before somebody speaks, and detectors settle on it.
LEAD_IN_S = 0.5
# After the last reply the line stays open this long for what is still on its way (a late transcript).
LINGER_S = 0.3


@dataclass(frozen=True, slots=True)
class Line:
    """A clip to speak; `barge_in_s`: this long after the reply to the line before began to sound."""

    clip: Clip
    barge_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class Manners:
    """`think_s`: from the end of a reply to the next line. `timeout_s`: how long a caller waits for an answer."""

    think_s: float = 0.6
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tell the server that the listener heard `audio_end_ms` of a reply and no more."""

    item_id: str
    audio_end_ms: int


@dataclass(slots=True, eq=False)
class Reply:
    """A response of the server; `done_at` is None while it may still grow, `cut` says that the caller spoke over it."""

    playback: Playback = field(default_factory=Playback)
    item_id: str = ""
    transcript: str = ""
    failed: bool = False
    report: ServerReport | None = None
    done_at: float | None = None
    cut: bool = False


@dataclass(slots=True, eq=False)
class Turn:
    """A line that was begun. `items`: the utterances that the server took from it, in order. A reply that begins after
    the caller has `given_up` is not the turn's.
    """

    spoken: Spoken
    items: list[str] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    stop_s: float | None = None
    rtts_s: list[float] = field(default_factory=list)
    given_up: bool = False

    @property
    def reply(self) -> Reply | None:
        return self.replies.get(self.items[-1]) if self.items else None

    @property
    def last_speech(self) -> int:
        """The sample of the stream with which the line's speech ends."""
        return self.spoken.start + self.spoken.clip.speech_end - 1


class Dialogue:
    """Ask for the `next_frame` whenever `microphone.due`, `take` every event when it arrives, until `finished`."""

    def __init__(self, lines: list[Line], manners: Manners, began_at: float) -> None:
        self.lines = lines
        self.manners = manners
        self.microphone = Microphone(began_at)
        self.faults: list[str] = []
        self._turns: list[Turn] = []
        self._over: dict[Turn, float] = {}
        self._heard: dict[str, str] = {}
        self._replies: dict[str, Reply] = {}
        self._caller_heard = False

    # -- the caller speaks -------------------------------------------------------------------------------------------

    def next_frame(self) -> bytes:
        """The PCM that leaves now; a line begins here when its time has come."""
        now = self.microphone.due
        if self._turns and self._turns[-1] not in self._over:
            self._close(self._turns[-1], now)
        due = self._next_line_at()
        if due is not None and due <= now:
            self._turns.append(Turn(self.microphone.speak(self.lines[len(self._turns)].clip)))
        return self.microphone.frame()

    @property
    def closed(self) -> int:
        """How many turns are over, replies heard to their end included."""
        return len(self._turns) if self._turns and self._turns[-1] in self._over else max(0, len(self._turns) - 1)

    @property
    def finished(self) -> bool:
        if self.closed < len(self.lines):
            return False
        return not self.lines or self.microphone.due >= self._over[self._turns[-1]] + LINGER_S

    def _next_line_at(self) -> float | None:
        """When the next line begins; None while that is not known, or none is left."""
        if len(self._turns) == len(self.lines):
            return None
        if not self._turns:
            return self.microphone.began_at + LEAD_IN_S
        turn = self._turns[-1]
        over = self._over.get(turn)
        due = None if over is None else over + self.manners.think_s
        barge_in_s = self.lines[len(self._turns)].barge_in_s
        reply = turn.reply
        if barge_in_s is not None and reply and reply.playback.began_at is not None and not reply.cut:
            at = max(reply.playback.began_at + barge_in_s, self._speech_ended(turn))
            return at if due is None else min(due, at)
        return due

    def _close(self, turn: Turn, now: float) -> None:
        """Note when the turn's reply was heard to its end, or that it was waited for long enough."""
        reply = turn.reply
        ended = self._speech_ended(turn)
        if reply and reply.done_at is not None and not reply.cut and not self._caller_heard:
            over = max(reply.done_at, reply.playback.ends_at, ended)
            if over <= now:
                self._over[turn] = over
                return
        waiting_since = max(ended, reply.playback.ends_at if reply else 0.0)
        if now >= waiting_since + self.manners.timeout_s:
            turn.given_up = True
            self._over[turn] = now

    def _speech_ended(self, turn: Turn) -> float:
        return self.microphone.scheduled(turn.last_speech)

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
                reply = self._replies[response.id or ""] = Reply()
                turn = next((turn for turn in reversed(self._turns) if turn.items), None)
                if turn and not turn.given_up:
                    turn.replies.setdefault(turn.items[-1], reply)
            case AudioDelta(response_id=key, item_id=item_id, delta=delta) if key in self._replies:
                self._replies[key].item_id = item_id
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

    def _done(self, reply: Reply, event: ResponseDone, now: float) -> None:
        reply.done_at = now
        reply.failed = event.response.status == "failed"
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

    def _detach(self, reply: Reply) -> None:
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
            spoken = latest.spoken
            cut.stop_s = now - self.microphone.scheduled(spoken.start + spoken.clip.speech_start)
        return Truncate(playing.item_id, int(played_s * 1000))

    # -- what it came to ---------------------------------------------------------------------------------------------

    @property
    def replies(self) -> list[Reply]:
        """Every response that sounded, in order."""
        return [reply for reply in self._replies.values() if reply.playback.began_at is not None]

    def records(self, run: int = 1) -> list[TurnRecord]:
        """One a line, in order, whether it was reached or not."""
        begun = [self._record(turn, run) for turn in self._turns]
        rest = [unspoken(line.clip.name, line.clip.expected, run) for line in self.lines[len(begun) :]]
        return begun + rest

    def _record(self, turn: Turn, run: int) -> TurnRecord:
        clip, reply = turn.spoken.clip, turn.reply
        outcome = self._outcome(turn)
        heard = " ".join(filter(None, (self._heard.get(item, "") for item in turn.items)))
        record = replace(
            unspoken(clip.name, clip.expected, run),
            heard=heard,
            outcome=outcome.value,
            rtt_ms=round(median(turn.rtts_s) * 1000, 2) if turn.rtts_s else None,
            wer=None if clip.expected is None else round(word_error_rate(clip.expected, heard), 4),
            premature_replies=sum(known is not reply for known in turn.replies.values()),
        )
        if reply is None or outcome is Outcome.UNANSWERED:
            return record
        report = reply.report or ServerReport()
        record = replace(
            record,
            answered=reply.transcript.strip(),
            interrupted=reply.cut,
            stop_ms=None if turn.stop_s is None else round(turn.stop_s * 1000, 1),
            llm_total_ms=report.llm_total_ms,
            hedged=report.hedged,
            engines=report.engines,
        )
        audible_at = reply.playback.audible_at()
        if outcome is Outcome.FAILED or audible_at is None:
            return record
        voice_to_voice_ms = round((audible_at - self._speech_ended(turn)) * 1000, 1)
        shares = stages_ms(report, voice_to_voice_ms, self._shift_ms(turn, report))
        return replace(record, voice_to_voice_ms=voice_to_voice_ms, stages_ms=shares)

    def _outcome(self, turn: Turn) -> Outcome:
        reply = turn.reply
        if reply is None or reply.playback.began_at is None:
            return Outcome.UNANSWERED
        if reply.cut:  # by the next line, or by the rest of its own, which then went unanswered
            return Outcome.UNANSWERED if turn is self._turns[-1] else Outcome.INTERRUPTED
        if reply.failed or reply.done_at is None:
            return Outcome.FAILED
        return Outcome.UNANSWERED if reply.playback.audible_at() is None else Outcome.ANSWERED

    def _shift_ms(self, turn: Turn, report: ServerReport) -> float:
        """How much later than the true last sample of speech the server's was due to leave."""
        if report.speech_end_ms is None:
            return 0.0
        last = max(0, round(report.speech_end_ms * WIRE_RATE / 1000) - 1)
        return (self.microphone.scheduled(last) - self._speech_ended(turn)) * 1000
