"""A turn while it is held: the line that was spoken, what the server took from it, and the replies that came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from loadtest.callers.loudspeaker import Loudspeaker
from loadtest.results.turn_record import ServerReport, TurnOutcome, TurnRecord, stages_ms, unspoken
from loadtest.scenario.microphone import Microphone, SpokenClip
from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.measuring.wer import word_error_rate, words


@dataclass(slots=True, eq=False)
class ReceivedReply:
    """A response of the server; `done_at` is None while it may still grow, `cut` says that the caller spoke over it.

    `kept`: what the conversation holds of it. `cached_tokens` of its prompt were known to the language model before.
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


@dataclass(slots=True, eq=False)
class ScriptedTurn:
    """A line that was begun. `items`: the utterances that the server took from it, in order. A reply that begins after
    the caller has `given_up` is not the turn's.
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
        return self.replies.get(self.items[-1]) if self.items else None

    @property
    def speech_begins(self) -> float:
        """When the line's first sample of speech was due to leave."""
        return self.microphone.scheduled(self.spoken.start + self.spoken.clip.speech_start)

    @property
    def speech_ends(self) -> float:
        """When the line's last sample of speech was due to leave."""
        return self.microphone.scheduled(self.spoken.start + self.spoken.clip.speech_end - 1)

    def outcome(self, latest: bool) -> TurnOutcome:
        """What it came to so far; `latest`: no line was begun after this one."""
        reply = self.reply
        if reply is None or reply.playback.began_at is None:
            return TurnOutcome.UNANSWERED
        if reply.cut:  # by the next line, or by the rest of its own, which then went unanswered
            return TurnOutcome.UNANSWERED if latest else TurnOutcome.INTERRUPTED
        if reply.failed or reply.done_at is None:
            return TurnOutcome.FAILED
        return TurnOutcome.UNANSWERED if reply.playback.audible_at() is None else TurnOutcome.ANSWERED

    def record(self, transcripts: Mapping[str, str], latest: bool, run: int) -> TurnRecord:
        """The turn as it is reported; `transcripts` by item."""
        clip, outcome = self.spoken.clip, self.outcome(latest)
        truth = clip.expected or ""
        heard = " ".join(filter(None, (transcripts.get(item) for item in self.items)))
        record = replace(
            unspoken(clip.name, clip.expected, run),
            heard=heard,
            outcome=outcome.value,
            rtt_ms=round(median(self.rtts_s) * 1000, 2) if self.rtts_s else None,
            wer=round(word_error_rate(truth, heard), 4) if words(truth) else None,
            premature_replies=sum(known is not self.reply for known in self.replies.values()),
        )
        if self.reply is None or outcome is TurnOutcome.UNANSWERED:
            return record
        return self._timed(self._answered(record, self.reply), self.reply)

    def _answered(self, record: TurnRecord, reply: ReceivedReply) -> TurnRecord:
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
        report = reply.report or ServerReport()
        audible_at = reply.playback.audible_at((report.answer_from_ms or 0.0) / 1000)
        if not record.ok or audible_at is None:
            return record
        voice_to_voice_ms = round((audible_at - self.speech_ends) * 1000, 1)
        shares = stages_ms(report, voice_to_voice_ms, self._shift_ms(report))
        return replace(record, voice_to_voice_ms=voice_to_voice_ms, stages_ms=shares)

    def _shift_ms(self, report: ServerReport) -> float:
        """How much later than the true last sample of speech the server's was due to leave."""
        if report.speech_end_ms is None:
            return 0.0
        last = max(0, round(report.speech_end_ms * WIRE_RATE / 1000) - 1)
        return (self.microphone.scheduled(last) - self.speech_ends) * 1000
