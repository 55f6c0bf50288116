"""What one turn of a conversation came to: an object of `rejoinder talk --json`, and how its waterfall is made.

`voice_to_voice_ms` is the client's alone: from the instant at which the true last speech sample of the clip was due to
leave the microphone to the instant at which the first audible sample of the reply sounded. The server knows its own
part of that interval, from the arrival of the sample with which *its* voice activity detector says the speech ended to
the first audio it handed to its socket, and divides it among the stages. Two things are added here, so that the stages
sum to the whole: to `silence` the time between the two ends of speech (both samples of one stream, each with its
scheduled instant), and to `delivery` what remains, which is the network both ways, the wait in the client's own
machine, and the silence with which the reply's audio begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pydantic import BaseModel, ConfigDict

from rejoinder.core.measuring.waterfall import UNATTRIBUTED, Stage

WATERFALL = (*(stage.value for stage in Stage), UNATTRIBUTED)
"""The keys of `stages_ms`, in order."""


class TurnOutcome(Enum):
    """`ANSWERED` and `INTERRUPTED` (answered, until the caller cut in) are good; the others are not."""

    ANSWERED = "answered"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One clip and its answer; a key a field.

    heard              what the server transcribed; "" if nothing
    answered           what it said, as far as it sent it; "" if the turn was not answered in time
    voice_to_voice_ms  true last speech sample of the clip -> first audible sample of the answer; null if there was none
    stages_ms          its division: silence, endpoint, stt, llm_first_token, first_segment, tts_first_audio, delivery,
                       unattributed; null if the server did not report it
    rtt_ms             median WebSocket ping during the turn; null if none came back
    llm_total_ms       the language model's whole answer, as the server measured it
    prompt_tokens, cached_tokens
                       of the language model's prompt, and how many of them it had from earlier prompts; null if the
                       server does not know
    interrupted        the reply was cut by the caller
    stop_ms            scheduled instant of the interrupting clip's first audible sample -> playback flushed
    hedged             the language model was asked twice
    engines            which engine stood behind each stage
    clip, run          the file, and the repetition (from 1)
    outcome            answered, interrupted, failed or unanswered
    expected, wer      the true text (a .txt beside the .wav) and the word error rate of `heard`; null without it
    premature_replies  replies that began before the clip was over, because the server took a pause for its end
    """

    heard: str
    answered: str
    voice_to_voice_ms: float | None
    stages_ms: dict[str, float] | None
    rtt_ms: float | None
    llm_total_ms: float | None
    prompt_tokens: int | None
    cached_tokens: int | None
    interrupted: bool
    stop_ms: float | None
    hedged: bool
    engines: dict[str, str]
    clip: str
    run: int
    outcome: str
    expected: str | None
    wer: float | None
    premature_replies: int

    @property
    def ok(self) -> bool:
        """Whether the turn was answered, be it that the caller then cut in."""
        return self.outcome in (TurnOutcome.ANSWERED.value, TurnOutcome.INTERRUPTED.value)


def unspoken(clip: str, expected: str | None, run: int) -> TurnRecord:
    """The record of a line that nothing is known about yet."""
    return TurnRecord(
        heard="",
        answered="",
        voice_to_voice_ms=None,
        stages_ms=None,
        rtt_ms=None,
        llm_total_ms=None,
        prompt_tokens=None,
        cached_tokens=None,
        interrupted=False,
        stop_ms=None,
        hedged=False,
        engines={},
        clip=clip,
        run=run,
        outcome=TurnOutcome.UNANSWERED.value,
        expected=expected,
        wer=None if expected is None else 1.0,
        premature_replies=0,
    )


class ServerReport(BaseModel):
    """The `rejoinder` field of response.done; the timing is there when the response answered a turn (`item_id`).

    `speech_end_ms` is a position in the caller's audio: where voice activity says that speech ended. `stop_ms`: from
    the arrival of the speech that interrupted it to its silence. `answer_from_ms`: a position in the reply's audio: an
    apology or a filler comes before it, for which nobody asked.
    """

    model_config = ConfigDict(frozen=True)

    interrupted: bool = False
    stop_ms: float | None = None
    hedged: bool = False
    llm_total_ms: float | None = None
    engines: dict[str, str] = {}
    item_id: str | None = None
    speech_end_ms: float | None = None
    unattributed_ms: float | None = None
    stages_ms: dict[str, float] | None = None
    answer_from_ms: float | None = None


def stages_ms(report: ServerReport, voice_to_voice_ms: float, shift_ms: float) -> dict[str, float] | None:
    """The waterfall of a turn, to 0.1 ms, summing to `voice_to_voice_ms`; None if the server measured none.

    `shift_ms`: how much later the server's end of speech left the microphone than the true one.
    """
    if report.stages_ms is None or report.unattributed_ms is None:
        return None
    shares = {stage.value: report.stages_ms.get(stage.value, 0.0) for stage in Stage}
    shares[Stage.SILENCE.value] += shift_ms
    shares[UNATTRIBUTED] = report.unattributed_ms
    shares = {name: round(share, 1) for name, share in shares.items()}
    within = sum(share for name, share in shares.items() if name != Stage.DELIVERY.value)
    shares[Stage.DELIVERY.value] = round(voice_to_voice_ms - within, 1)
    return shares
