"""Result of one turn of a conversation, an object of `rejoinder talk --json`, and its waterfall.

The client alone measures `voice_to_voice_ms`. It starts when the last sample of speech in the clip is due to leave the
microphone. It ends when the first audible sample of the reply is played.

The server measures a part of that interval and divides it among the stages. The server's part starts when it receives
the last sample of speech that its voice activity detector found. It ends when the server writes the first audio to its
socket. The client extends two stages so that all stages sum to `voice_to_voice_ms`:

- `silence` gets the time from the true end of speech to the end that the server detected. Both ends are samples of one
  audio stream, and every sample has a scheduled time.
- `delivery` gets the rest: the network in both directions, delays in the client's machine, and leading silence in the
  reply's audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pydantic import BaseModel, ConfigDict

from rejoinder.core.measuring.waterfall import UNATTRIBUTED, Stage

WATERFALL = (*(stage.value for stage in Stage), UNATTRIBUTED)
"""The keys of `stages_ms`, in pipeline order."""


class TurnOutcome(Enum):
    """Outcome of a turn.

    Attributes:
        ANSWERED: The reply was audible and complete.
        INTERRUPTED: The reply was audible until the caller interrupted it. This is a success, as ANSWERED is.
        FAILED: The reply failed or did not complete.
        UNANSWERED: There was no audible reply within the timeout.
    """

    ANSWERED = "answered"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One clip and the server's reply to it. The JSON object has one key for each attribute.

    Attributes:
        heard: The server's transcript of the clip. Empty if there was none.
        answered: Transcript of the reply, as far as the server sent it. Empty if the turn was unanswered.
        voice_to_voice_ms: Time from the clip's last sample of speech to the first audible sample of the reply, in
            milliseconds. Null if there was no reply.
        stages_ms: `voice_to_voice_ms`, divided into silence, endpoint, stt, llm_first_token, first_segment,
            tts_first_audio, delivery and unattributed, in milliseconds. Null if the server did not report its stages.
        rtt_ms: Median round-trip time of WebSocket pings during the turn, in milliseconds. Null if no ping was
            answered.
        llm_total_ms: Duration of the whole language model response, measured by the server, in milliseconds. Null if
            the server did not report it.
        prompt_tokens: Tokens of the language model's prompt. Null if unknown.
        cached_tokens: Prompt tokens that came from the language model's prefix cache. Null if unknown.
        interrupted: True if the caller interrupted the reply.
        stop_ms: Time from the first sample of speech of the interrupting clip to the end of playback, in milliseconds.
            Null without an interruption.
        hedged: True if the language model request was hedged.
        engines: Engine of each stage, as the server reports it.
        clip: Path of the recording.
        run: Number of the repetition, from 1.
        outcome: answered, interrupted, failed or unanswered.
        expected: Reference text, from the .txt file next to the recording. Null without that file.
        wer: Word error rate of `heard` against `expected`, from 0. Null without a reference text.
        premature_replies: Replies that started before the clip was over, because the server took a pause for its end.
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
        """True if the reply was audible: the turn was answered, or the caller interrupted the reply."""
        return self.outcome in (TurnOutcome.ANSWERED.value, TurnOutcome.INTERRUPTED.value)


def unanswered_record(clip: str, expected: str | None, run: int) -> TurnRecord:
    """Return the record of a clip without transcript and reply. The outcome is unanswered.

    Args:
        clip: Path of the recording.
        expected: Reference text, or None.
        run: Number of the repetition, from 1.
    """
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
    """The `rejoinder` field of a `response.done` event.

    Attributes:
        interrupted: True if the caller interrupted the response.
        stop_ms: Time from the arrival of the interrupting speech to the end of the response, in milliseconds.
        hedged: True if the language model request was hedged.
        llm_total_ms: Duration of the whole language model response in milliseconds.
        engines: Engine of each stage, by stage.
        item_id: The conversation item that the response answers, or None if it answers no turn. If `item_id` is None,
            `speech_end_ms`, `unattributed_ms` and `stages_ms` are None, too.
        speech_end_ms: Position in the caller's audio at which voice activity detection ended the speech, in
            milliseconds.
        unattributed_ms: Time in the server's part of the latency that no stage accounts for, in milliseconds.
        stages_ms: Milliseconds that each stage adds to the server's part of the latency, by stage.
        answer_from_ms: Position in the reply's audio at which the answer starts, in milliseconds. An apology or a
            filler comes before it.
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
    """Return the milliseconds that each stage adds to a turn's latency, by stage, in pipeline order (the waterfall).

    The values sum to `voice_to_voice_ms`. The result is None if the server reported no stages.

    Args:
        report: The server's report.
        voice_to_voice_ms: Latency of the whole turn in milliseconds, rounded to 0.1 ms.
        shift_ms: Milliseconds from the true end of the caller's speech to the end that the server detected. Each end
            counts as the deadline at which its audio frame was due to be sent. The time is added to the stage silence.
    """
    if report.stages_ms is None or report.unattributed_ms is None:
        return None
    shares = {stage.value: report.stages_ms.get(stage.value, 0.0) for stage in Stage}
    shares[Stage.SILENCE.value] += shift_ms
    shares[UNATTRIBUTED] = report.unattributed_ms
    shares = {name: round(share, 1) for name, share in shares.items()}
    other_stages = sum(share for name, share in shares.items() if name != Stage.DELIVERY.value)
    shares[Stage.DELIVERY.value] = round(voice_to_voice_ms - other_stages, 1)
    return shares
