"""What the turn machine is told, beside the speech edges (`rejoinder.core.turns.speech_detector`)."""

from __future__ import annotations

from dataclasses import dataclass

from rejoinder.core.turns.speech_detector import SoftEnd, SpeechResumed, SpeechStarted


@dataclass(frozen=True, slots=True)
class VerdictReady:
    """The turn model's probability for this revision; None when it did not answer in time.

    `processed`: voice activity is decided up to this sample.
    """

    revision: int
    probability: float | None
    processed: int


@dataclass(frozen=True, slots=True)
class TranscriptReady:
    """The words of this revision are known, or nobody will ever know them; `meant`: for us
    (`rejoinder.core.turns.barge_in`).

    `processed`: voice activity is decided up to this sample.
    """

    revision: int
    meant: bool
    processed: int


@dataclass(frozen=True, slots=True)
class InterimReady:
    """While the caller speaks: the words so far are meant for us, or there are none that are."""

    revision: int
    meant: bool


@dataclass(frozen=True, slots=True)
class AudioProcessed:
    """Voice activity is decided up to sample `processed`."""

    processed: int


@dataclass(frozen=True, slots=True)
class SilenceElapsed:
    """The timer of this revision fired, and no audio that came before waits for its voice activity decision."""

    revision: int


@dataclass(frozen=True, slots=True)
class CommitRequested:
    """The client ends the utterance at sample `end`; whether it is answered is the client's to say."""

    end: int


@dataclass(frozen=True, slots=True)
class ClearRequested:
    """The client drops the audio before sample `end` that is not committed yet."""

    end: int


@dataclass(frozen=True, slots=True)
class ReplyRequested:
    """The client asks for a reply. No response is open then.

    Attributes:
        request: What the client asks for. The turn machine only passes it on to `StartReply`.
    """

    request: object | None = None


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """The reply was heard to its end, failed, or was cancelled by the client."""


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """The time set by WatchSilence is over; the caller's audio from `start` to `end` came meanwhile."""

    revision: int
    start: int
    end: int


TurnEvent = (
    SpeechStarted
    | SoftEnd
    | SpeechResumed
    | VerdictReady
    | TranscriptReady
    | InterimReady
    | AudioProcessed
    | SilenceElapsed
    | CommitRequested
    | ClearRequested
    | ReplyRequested
    | ReplyEnded
    | IdleTimeout
)
