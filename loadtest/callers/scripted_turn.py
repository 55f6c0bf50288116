"""A turn of a scripted conversation in progress: the spoken line, the server's utterances, and its replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from loadtest.callers.loudspeaker import Loudspeaker
from loadtest.callers.resume_state import Position
from loadtest.results.turn_record import ServerReport, TurnOutcome, TurnRecord, stages_ms, unanswered_record
from loadtest.scenario.microphone import Microphone, SpokenClip
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.measuring.wer import word_error_rate, words


@dataclass(slots=True, eq=False)
class ReceivedReply:
    """A response of the server.

    Attributes:
        playback: Playback of its audio.
        item_id: Identifier of the conversation item with the audio.
        transcript: Text of the audio.
        kept: Text of the response in the server's conversation history.
        failed: True if the server reported failure.
        report: The `rejoinder` field of `response.done`, or None.
        prompt_tokens: Tokens of the language model's prompt, or None if unknown.
        cached_tokens: Prompt tokens from the language model's prefix cache, or None if unknown.
        done_at: Time of `response.done` in seconds on the client's clock, or None while the response may still grow.
        cut: True if the caller interrupted the response.
        item_from_s: Position in the audio at which the audio of `item_id` starts, in seconds. It is above 0 if the
            response continued in another item after its connection was lost.
        continued: True if the response continued on another connection. The server's report then covers only the rest
            of it.
    """

    playback: Loudspeaker = field(default_factory=Loudspeaker)
    item_id: str = ""
    transcript: str = ""
    kept: str = ""
    failed: bool = False
    report: ServerReport | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    done_at: float | None = None
    cut: bool = False
    item_from_s: float = 0.0
    continued: bool = False

    def position(self, position_s: float) -> Position:
        """Return a position in the audio of the reply, in seconds, as one in that of `item_id`."""
        return Position.at(self.item_id, position_s, self.item_from_s)


@dataclass(slots=True, eq=False)
class ScriptedTurn:
    """A line that the caller has started to speak. All times are in seconds on the client's clock.

    Attributes:
        microphone: The caller's microphone.
        spoken: The clip and its position in the microphone's stream.
        items: Ids of the utterances that the server detected in the line, in order.
        replies: Replies, by the id of the utterance that they answer.
        stop_s: Seconds from the first speech of the next line, which interrupts this turn's reply, to the end of the
            reply's playback. None without an interruption.
        rtts_s: Round-trip times of the pings during the turn, in seconds.
        given_up: True after the timeout. A reply that starts later does not belong to the turn.
    """

    microphone: Microphone
    spoken: SpokenClip
    items: list[str] = field(default_factory=list)
    replies: dict[str, ReceivedReply] = field(default_factory=dict)
    stop_s: float | None = None
    rtts_s: list[float] = field(default_factory=list)
    given_up: bool = False

    @property
    def reply(self) -> ReceivedReply | None:
        """Reply to the last utterance of the line, or None. Replies to earlier utterances are premature."""
        return self.replies.get(self.items[-1]) if self.items else None

    @property
    def speech_begins(self) -> float:
        """Deadline of the frame with the line's first sample of speech, in seconds on the client's clock."""
        return self.microphone.scheduled(self.spoken.start + self.spoken.clip.speech_start)

    @property
    def speech_ends(self) -> float:
        """Deadline of the frame with the line's last sample of speech, in seconds on the client's clock."""
        return self.microphone.scheduled(self.spoken.start + self.spoken.clip.speech_end - 1)

    def outcome(self, latest: bool) -> TurnOutcome:
        """Return the outcome of the turn so far. `latest` is True if the caller has not started a later line."""
        reply = self.reply
        if reply is None or reply.playback.began_at is None:
            return TurnOutcome.UNANSWERED
        # A reply can also be interrupted by the rest of its own line. No later line has started then, and the turn has
        # no answer.
        if reply.cut:
            return TurnOutcome.UNANSWERED if latest else TurnOutcome.INTERRUPTED
        if reply.failed or reply.done_at is None:
            return TurnOutcome.FAILED
        return TurnOutcome.UNANSWERED if reply.playback.audible_at() is None else TurnOutcome.ANSWERED

    def record(self, transcripts: Mapping[str, str], latest: bool, run: int) -> TurnRecord:
        """Return the record of the turn.

        Args:
            transcripts: Transcripts of the caller's speech, by the utterance's id.
            latest: True if the caller has not started a later line.
            run: Number of the repetition, from 1, to note in the record.
        """
        clip, outcome = self.spoken.clip, self.outcome(latest)
        reference = clip.expected or ""
        transcript = " ".join(filter(None, (transcripts.get(item) for item in self.items)))
        record = replace(
            unanswered_record(clip.name, clip.expected, run),
            heard=transcript,
            outcome=outcome.value,
            rtt_ms=round(median(self.rtts_s) * 1000, 2) if self.rtts_s else None,
            wer=round(word_error_rate(reference, transcript), 4) if words(reference) else None,
            premature_replies=sum(reply is not self.reply for reply in self.replies.values()),
        )
        if self.reply is None or outcome is TurnOutcome.UNANSWERED:
            return record
        return self._timed(self._answered(record, self.reply), self.reply)

    def _answered(self, record: TurnRecord, reply: ReceivedReply) -> TurnRecord:
        """Return a copy of the record with the reply's text, its token counts and the server's report."""
        report = reply.report or ServerReport()
        return replace(
            record,
            answered=reply.transcript.strip(),
            interrupted=reply.cut,
            stop_ms=None if self.stop_s is None else round(self.stop_s * 1000, 1),
            llm_total_ms=report.llm_total_ms,
            prompt_tokens=reply.prompt_tokens,
            cached_tokens=reply.cached_tokens,
            hedged=report.hedged,
            engines=report.engines,
        )

    def _timed(self, record: TurnRecord, reply: ReceivedReply) -> TurnRecord:
        """Return a copy of the record with voice-to-voice latency and stages in milliseconds.

        Return the record unchanged if no answer in `reply` was audible.
        """
        report = reply.report or ServerReport()
        audible_at = reply.playback.audible_at((report.answer_from_ms or 0.0) / 1000)
        if not record.ok or audible_at is None:
            return record
        voice_to_voice_ms = round((audible_at - self.speech_ends) * 1000, 1)
        shares = stages_ms(report, voice_to_voice_ms, self._shift_ms(report))
        return replace(record, voice_to_voice_ms=voice_to_voice_ms, stages_ms=shares)

    def _shift_ms(self, report: ServerReport) -> float:
        """Return the milliseconds from the true end of speech to the end that the server detected.

        Each end counts as the deadline of the 20 ms frame that contains it. The result is 0 if the server reported no
        end.
        """
        if report.speech_end_ms is None:
            return 0.0
        last = max(0, round(report.speech_end_ms * WIRE_RATE / 1000) - 1)
        return (self.microphone.scheduled(last) - self.speech_ends) * 1000
