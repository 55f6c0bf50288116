"""What became of a caller's turns: outcomes, the whole latency and its stages, counted where the run is measured.

A turn that was not answered in time counts at the time-out's value, and as a failure: leaving it out would make a
system that answers few turns look fast.
"""

from __future__ import annotations

from collections.abc import Mapping
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
"""Prefix of the whole latency by region, in a tally."""

RAW = "raw:"
"""Prefix of a stage's own duration as the server measured it, which overlaps with others'."""

EOU, AUDIO = "eou", "audio"
"""The guide's VAD/EOU (silence and endpoint together), and its audio pipeline (delivery, and what no stage covers)."""

_SUMS = {EOU: (Stage.SILENCE.value, Stage.ENDPOINT.value), AUDIO: (Stage.DELIVERY.value, UNATTRIBUTED)}


@dataclass(slots=True)
class OpenTurn:
    """An utterance that began at `began_at`, with frame `first_frame` of those sent; `spoken` frames of it left.

    `finished`: whether what the server took from it last was all of it; None before it took anything.
    """

    number: int
    utterance: Utterance
    began_at: float
    first_frame: int
    spoken: int = 0
    finished: bool | None = None
    premature: int = 0
    reply: BufferedReply | None = None

    @property
    def speech_begins(self) -> float:
        """When its frame with the first sample of speech was due."""
        return self.began_at + self.utterance.speech_start_s // FRAME_S * FRAME_S

    @property
    def speech_ends(self) -> float:
        """When its frame with the last sample of speech was due."""
        return self.began_at + self.utterance.speech_end_s // FRAME_S * FRAME_S

    def answered(self, now: float) -> bool:
        """Whether its answer sounds already."""
        return self.reply is not None and self.reply.audible_at is not None and self.reply.audible_at <= now


class TurnOutcomes:
    """Closes turns into a tally; those whose speech ended outside the measured time are only counted as `discarded`."""

    def __init__(self, tally: TurnHistograms, measure_from: float, measure_to: float, timeout_s: float) -> None:
        self._tally = tally
        self._from = measure_from
        self._to = measure_to
        self._timeout_s = timeout_s

    def measures(self, at: float) -> bool:
        """Whether what happened at an instant counts."""
        return self._from <= at < self._to

    def measured_s(self, begin: float, end: float) -> float:
        """How much of an interval counts."""
        return max(0.0, min(end, self._to) - max(begin, self._from))

    def fault(self, code: str) -> None:
        """The server sent an error event."""
        self._tally.counts[f"error:{code}"] += 1

    def stopped(self, seconds: float, turn: OpenTurn) -> None:
        """The reply that `turn` spoke over fell silent so long after the interruption began."""
        if self.measures(turn.speech_begins):
            self._tally.record("stop", max(0.0, seconds))

    def abandoned(self, turn: OpenTurn) -> None:
        """The caller hung up before any answer: neither a success nor a failure, but told."""
        self._tally.counts["abandoned" if self.measures(turn.speech_ends) else "discarded"] += 1

    def close(self, turn: OpenTurn, call: Call, path: NetworkPath) -> None:
        """The turn is over, whatever came of it."""
        counts, reply = self._tally.counts, turn.reply
        if not self.measures(turn.speech_ends):
            counts["discarded"] += 1
            return
        counts["turns"] += 1
        counts["premature"] += turn.premature
        outcome = _outcome(reply)
        counts[outcome] += 1
        taken = self._timeout_s
        if outcome in ("answered", "interrupted") and reply and reply.answered_at is not None:
            taken = reply.answered_at - turn.speech_ends
            self._stages(turn, reply, taken, path)
        self._tally.record(VOICE_TO_VOICE, max(0.0, taken))
        self._tally.record(REGION + call.region, max(0.0, taken))
        self._tally.offer_slow_turn(taken, _turn_summary(turn, call, outcome, taken))

    def _stages(self, turn: OpenTurn, reply: BufferedReply, taken: float, path: NetworkPath) -> None:
        counts, tally = self._tally.counts, self._tally
        counts["underruns"] += reply.underruns
        counts["underrun_us"] += round(reply.stalled_s * 1e6)
        counts["audio_us"] += round(reply.received_s * 1e6)
        report: Mapping[str, Any] = reply.report or {}
        counts["hedged"] += bool(report.get("hedged"))
        shares = _stage_shares_ms(report, turn, taken)
        for stage, share_ms in (shares or {}).items():
            tally.record(stage, max(0.0, share_ms / 1000))
        for name, parts in _SUMS.items():
            if shares:
                # The route's delay is the network's, not the audio pipeline's.
                known_s = sum(shares[part] for part in parts) / 1000 - (path.rtt_s if name == AUDIO else 0.0)
                tally.record(name, max(0.0, known_s))
        for stage, raw_ms in (report.get("raw_ms") or {}).items():
            tally.record(RAW + stage, raw_ms / 1000)
        if shares is None:
            counts["unreported"] += 1


def _outcome(reply: BufferedReply | None) -> str:
    if reply is None or reply.answered_at is None:
        return "failed" if reply and reply.status == "failed" else "unanswered"
    if reply.cut_at is not None:
        return "interrupted" if reply.answered_at < reply.cut_at else "unanswered"
    return "failed" if reply.status == "failed" or reply.done_at is None else "answered"


def _stage_shares_ms(report: Mapping[str, Any], turn: OpenTurn, taken: float) -> dict[str, float] | None:
    """The waterfall of a turn in milliseconds, as `rejoinder talk` divides it."""
    if report.get("stages_ms") is None:
        return None
    parsed = ServerReport.model_construct(**report)
    shift_ms = 0.0
    if parsed.speech_end_ms is not None:
        last_s = parsed.speech_end_ms / 1000 - turn.first_frame * FRAME_S - 1 / STT_RATE
        shift_ms = ((last_s // FRAME_S) - (turn.utterance.speech_end_s // FRAME_S)) * FRAME_S * 1000
    return stages_ms(parsed, taken * 1000, shift_ms)


def _turn_summary(turn: OpenTurn, call: Call, outcome: str, taken: float) -> dict[str, object]:
    return {
        "call": call.number,
        "turn": turn.number,
        "clip": turn.utterance.name,
        "region": call.region,
        "outcome": outcome,
        "ms": round(taken * 1000, 1),
        "stages_ms": turn.reply.report.get("stages_ms") if turn.reply and turn.reply.report else None,
    }
