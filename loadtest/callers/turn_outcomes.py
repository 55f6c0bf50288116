"""Outcomes and latencies of the simulated callers' turns.

Only turns whose speech ended within the measured time are recorded. A turn without an answer within the timeout is a
failure, and the timeout counts as its latency. If such turns were left out, a system that answers few turns would look
fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.callers.playout_buffer import BufferedReply
from loadtest.results.histograms import TurnHistograms
from loadtest.results.result import VOICE_TO_VOICE
from loadtest.results.turn_record import ServerReport, stages_ms
from loadtest.scenario.network import NetworkPath
from loadtest.scenario.schedule import Call
from loadtest.scenario.utterances import FRAME_S, Utterance
from rejoinder.core.audio.pcm import STT_RATE
from rejoinder.core.measuring.waterfall import UNATTRIBUTED, Stage

REGION = "region:"
"""Prefix of the name of a series of latencies: the voice-to-voice latency of one region."""

RAW = "raw:"
"""Prefix of the name of a series of latencies: a stage's own duration, with the time in which it overlaps other
stages."""

EOU, AUDIO = "eou", "audio"
"""Names of the series of the latency guide's VAD/EOU component (silence + endpoint) and audio pipeline (delivery +
unattributed)."""

FAILING = "failing:"
"""Prefix of the names of counts of failing calls; REGION:CAUSE follows."""

RESUME, GAP = "resume", "resume_gap"
"""Names of the series of lost connections: the time from the loss to the continued session, and the silence that a
caller heard in a reply that continued."""

YIELD_S = 0.3
"""Longest time, in seconds, that a reply may go on when its caller talks over it, besides the round trip of the route.
It is the limit of `rejoinder bench turn-taking`."""

_SUMS = {EOU: (Stage.SILENCE.value, Stage.ENDPOINT.value), AUDIO: (Stage.DELIVERY.value, UNATTRIBUTED)}


@dataclass(slots=True)
class OpenTurn:
    """A turn in progress. All times are in seconds on the caller's clock.

    Attributes:
        number: Number of the turn within the call, from 1.
        utterance: The utterance that the caller speaks.
        began_at: Deadline of the utterance's first frame.
        first_frame: Number of frames that the caller sent in this call before the utterance.
        sent_frames: Number of frames of the utterance sent so far.
        detected_whole: True if the utterance that the server detected last reaches the end of the caller's speech,
            false if it ends earlier. None until the server has detected an utterance.
        premature: Number of replies that started before the utterance was over.
        reply: The reply to the whole utterance, or None.
    """

    number: int
    utterance: Utterance
    began_at: float
    first_frame: int
    sent_frames: int = 0
    detected_whole: bool | None = None
    premature: int = 0
    reply: BufferedReply | None = None

    @property
    def speech_begins(self) -> float:
        """Deadline of the frame with the first sample of speech, in seconds on the caller's clock."""
        return self.began_at + self.utterance.speech_start_s // FRAME_S * FRAME_S

    @property
    def speech_ends(self) -> float:
        """Deadline of the frame with the last sample of speech, in seconds on the caller's clock."""
        return self.began_at + self.utterance.speech_end_s // FRAME_S * FRAME_S

    def answered(self, now: float) -> bool:
        """Return True if the answer has become audible by `now`, in seconds on the caller's clock."""
        return self.reply is not None and self.reply.audible_at is not None and self.reply.audible_at <= now


class TurnOutcomes:
    """Recorder of the outcomes and latencies of finished turns.

    A turn whose speech ended outside the measured time is only counted, as `discarded`.
    """

    def __init__(self, histograms: TurnHistograms, measure_from: float, measure_to: float, timeout_s: float) -> None:
        """Create a recorder.

        Args:
            histograms: Histograms to which outcomes and latencies are added.
            measure_from: Start of the measured time, in seconds on the callers' clock.
            measure_to: End of the measured time, in seconds on the callers' clock.
            timeout_s: Latency, in seconds, that is recorded for a turn without an answer.
        """
        self._histograms = histograms
        self._from = measure_from
        self._to = measure_to
        self._timeout_s = timeout_s

    def measures(self, at: float) -> bool:
        """Return True if `at`, in seconds on the callers' clock, is within the measured time."""
        return self._from <= at < self._to

    def measured_s(self, begin: float, end: float) -> float:
        """Return how many seconds of the interval from `begin` to `end` are within the measured time.

        `begin` and `end` are in seconds on the callers' clock.
        """
        return max(0.0, min(end, self._to) - max(begin, self._from))

    def count_error(self, code: str) -> None:
        """Count an error event from the server, by its error code."""
        self._histograms.counts[f"error:{code}"] += 1

    def record_resumed(self, lost_at: float, now: float) -> None:
        """Record that a call continues at `now` whose connection was lost at `lost_at`, both in seconds."""
        self._histograms.counts["resumed"] += 1
        self._histograms.record(RESUME, max(0.0, now - lost_at))

    def record_gap(self, seconds: float) -> None:
        """Record the silence, in seconds, inside a reply that continues on another connection."""
        self._histograms.record(GAP, max(0.0, seconds))

    def record_stop(self, seconds: float, turn: OpenTurn, path: NetworkPath) -> None:
        """Record how long an interrupted reply took to stop.

        Args:
            seconds: Time from the first speech of the interrupting turn to the end of the reply's playback.
            turn: The interrupting turn.
            path: The emulated network of the call.
        """
        if self.measures(turn.speech_begins):
            self._histograms.record("stop", max(0.0, seconds))
            self._histograms.counts["interruptions"] += 1
            self._histograms.counts["late_yields"] += seconds - path.rtt_s > YIELD_S

    def count_unyielded(self, seconds: float, turn: OpenTurn, path: NetworkPath) -> None:
        """Count a reply that its caller talked over and that was played to its end, if it should have stopped before.

        Args:
            seconds: Time from the first speech of the interrupting turn to the end of the reply.
            turn: The interrupting turn.
            path: The emulated network of the call.
        """
        if self.measures(turn.speech_begins) and seconds - path.rtt_s > YIELD_S:
            self._histograms.counts.update(("interruptions", "late_yields"))

    def count_false_interruption(self, now: float) -> bool:
        """Count a reply that the server silenced at `now`, in seconds, although the caller said nothing.

        Return True if `now` is within the measured time.
        """
        measured = self.measures(now)
        self._histograms.counts["false_interruptions"] += measured
        return measured

    def count_response(self, now: float, *, failed: bool) -> None:
        """Count a response that ended at `now`, in seconds. `failed` is True if it has an error."""
        if self.measures(now):
            self._histograms.counts["responses"] += 1
            self._histograms.counts["responses_failed"] += failed

    def count_abandoned(self, turn: OpenTurn) -> None:
        """Count a turn whose caller hung up before the answer. Such a turn is neither a success nor a failure."""
        self._histograms.counts["abandoned" if self.measures(turn.speech_ends) else "discarded"] += 1

    def close(self, turn: OpenTurn, call: Call, path: NetworkPath) -> tuple[str, ...]:
        """Record a finished turn: its outcome, its latency and, if it was answered, its stages.

        Args:
            turn: The turn.
            call: The call of the turn.
            path: The emulated network of the call.

        Returns:
            What was wrong with the turn, in words.
        """
        counts, reply = self._histograms.counts, turn.reply
        if not self.measures(turn.speech_ends):
            counts["discarded"] += 1
            return ()
        counts["turns"] += 1
        counts["premature"] += turn.premature
        counts["cut_off"] += turn.premature > 0
        outcome = _outcome(reply)
        counts[outcome] += 1
        latency_s = self._timeout_s
        if outcome in ("answered", "interrupted") and reply and reply.answered_at is not None:
            latency_s = reply.answered_at - turn.speech_ends
            self._record_stages(turn, reply, latency_s, path)
        self._histograms.record(VOICE_TO_VOICE, max(0.0, latency_s))
        self._histograms.record(REGION + call.region, max(0.0, latency_s))
        self._histograms.offer_slow_turn(latency_s, _turn_summary(turn, call, outcome, latency_s))
        return tuple(_faults(turn, outcome))

    def count_failing_call(self, faults: Counter[str], region: str) -> None:
        """Count a call with faults, by the one that it had most often and by its region. Count nothing without faults.

        Args:
            faults: How often each fault occurred in the call.
            region: The call's region.
        """
        if faults:
            cause, _ = faults.most_common(1)[0]
            self._histograms.counts[f"{FAILING}{region}:{cause}"] += 1

    def _record_stages(self, turn: OpenTurn, reply: BufferedReply, latency_s: float, path: NetworkPath) -> None:
        """Record the reply's underruns and audio, and the stages of the turn if the server reported them.

        Args:
            turn: The answered turn.
            reply: The reply to the turn.
            latency_s: Voice-to-voice latency of the turn in seconds.
            path: The emulated network of the call.
        """
        counts, histograms = self._histograms.counts, self._histograms
        counts["underruns"] += reply.underruns
        counts["underrun_us"] += round(reply.stalled_s * 1e6)
        counts["audio_us"] += round(reply.received_s * 1e6)
        report: Mapping[str, Any] = reply.report or {}
        counts["hedged"] += bool(report.get("hedged"))
        shares = _stage_shares_ms(report, turn, latency_s)
        for stage, share_ms in (shares or {}).items():
            histograms.record(stage, max(0.0, share_ms / 1000))
        for name, parts in _SUMS.items():
            if shares:
                # The series AUDIO measures the audio pipeline. Subtract the emulated route's round trip, which is
                # network time.
                sum_s = sum(shares[part] for part in parts) / 1000 - (path.rtt_s if name == AUDIO else 0.0)
                histograms.record(name, max(0.0, sum_s))
        for stage, raw_ms in (report.get("raw_ms") or {}).items():
            histograms.record(RAW + stage, raw_ms / 1000)
        if shares is None and not reply.continued:
            counts["unreported"] += 1


def _faults(turn: OpenTurn, outcome: str) -> Iterator[str]:
    """Yield what was wrong with a turn of this outcome, in words."""
    if outcome in ("failed", "unanswered"):
        yield f"a turn {'failed' if outcome == 'failed' else 'had no answer'}"
    if turn.premature:
        yield "a reply started before the caller had finished"
    if turn.reply and turn.reply.underruns:
        yield "the audio had gaps"


def _outcome(reply: BufferedReply | None) -> str:
    if reply is None or reply.answered_at is None:
        return "failed" if reply and reply.status == "failed" else "unanswered"
    if reply.cut_at is not None:
        return "interrupted" if reply.answered_at < reply.cut_at else "unanswered"
    return "failed" if reply.status == "failed" or reply.done_at is None else "answered"


def _stage_shares_ms(report: Mapping[str, Any], turn: OpenTurn, latency_s: float) -> dict[str, float] | None:
    """Return the milliseconds that each stage adds to a turn's latency, by stage. None if the server reports none.

    Args:
        report: The `rejoinder` field of the reply's `response.done`.
        turn: The turn.
        latency_s: Voice-to-voice latency of the turn in seconds. The milliseconds of all stages sum to it.
    """
    if report.get("stages_ms") is None:
        return None
    parsed = ServerReport.model_construct(**report)
    shift_ms = 0.0
    if parsed.speech_end_ms is not None:
        last_s = parsed.speech_end_ms / 1000 - turn.first_frame * FRAME_S - 1 / STT_RATE
        shift_ms = ((last_s // FRAME_S) - (turn.utterance.speech_end_s // FRAME_S)) * FRAME_S * 1000
    return stages_ms(parsed, latency_s * 1000, shift_ms)


def _turn_summary(turn: OpenTurn, call: Call, outcome: str, latency_s: float) -> dict[str, object]:
    return {
        "call": call.number,
        "turn": turn.number,
        "clip": turn.utterance.name,
        "region": call.region,
        "outcome": outcome,
        "ms": round(latency_s * 1000, 1),
        "stages_ms": turn.reply.report.get("stages_ms") if turn.reply and turn.reply.report else None,
    }
