"""Commands of the turn machine, carried out by the session. Sample indices count the caller's audio at 16 kHz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class AnnounceSpeech:
    """Tell the client that the caller has been speaking since sample `start`."""

    start: int


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe samples [start, end) for this revision, and answer with `TranscriptReady`.

    Attributes:
        revision: The revision that the result belongs to.
        start: First sample.
        end: Sample after the last one.
        detect_end_of_turn: Whether to determine also the probability that the turn is over, and answer with
            `VerdictReady`.
    """

    revision: int
    start: int
    end: int
    detect_end_of_turn: bool


@dataclass(frozen=True, slots=True)
class StartDraft:
    """Start a speculative reply to the transcript of this revision. None of its output may be sent yet."""

    revision: int


@dataclass(frozen=True, slots=True)
class DiscardDraft:
    """Discard the speculative reply of this revision. Its turn is committed without it."""

    revision: int


@dataclass(frozen=True, slots=True)
class CancelRevision:
    """Cancel all work for this revision, and discard its speculative reply."""

    revision: int


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Send `SilenceElapsed` for this revision at monotonic time `at`, in seconds. Replaces any earlier timer."""

    revision: int
    at: float


@dataclass(frozen=True, slots=True)
class CommitTurn:
    """Make the utterance a turn of the conversation.

    Attributes:
        revision: The revision that becomes the turn.
        start: First sample of the turn.
        end: Sample after the last one of the turn.
        speech_end: Sample at which speech ended. The silence after it belongs to the turn.
        transcript_requested: Whether `Transcribe` was commanded for this revision. If not, the session transcribes
            [start, end) now.
    """

    revision: int
    start: int
    end: int
    speech_end: int
    transcript_requested: bool


@dataclass(frozen=True, slots=True)
class StartIdleTimer:
    """Send `IdleTimeout` for this revision at monotonic time `at`, in seconds. Replaces any earlier timer."""

    revision: int
    at: float


@dataclass(frozen=True, slots=True)
class CommitIdleTurn:
    """Make the silence of samples [start, end) a turn of the conversation."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class StartReply:
    """Start a reply.

    Attributes:
        draft: The revision whose draft becomes the reply, if there is one.
        request: The `request` of the `ReplyRequested` that caused the reply. None if a turn caused it.
    """

    draft: int | None = None
    request: object | None = None


@dataclass(frozen=True, slots=True)
class PauseReply:
    """Stop the reply's playout at once. `ResumeReply` or `CancelReply` follows."""


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """Continue the playout of the paused reply from the last sample that the caller heard."""


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Cancel the reply. `reason` is the wire's name of the cause."""

    reason: Literal["turn_detected"]


@dataclass(frozen=True, slots=True)
class DismissUtterance:
    """Drop the announced utterance without making it a turn.

    Attributes:
        speech_end: Sample at which its sound ended.
        end: Sample at which the next utterance may begin.
    """

    speech_end: int
    end: int


Command = (
    AnnounceSpeech
    | Transcribe
    | StartDraft
    | DiscardDraft
    | CancelRevision
    | WaitUntil
    | CommitTurn
    | StartIdleTimer
    | CommitIdleTurn
    | StartReply
    | PauseReply
    | ResumeReply
    | CancelReply
    | DismissUtterance
)
