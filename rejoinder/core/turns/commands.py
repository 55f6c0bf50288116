"""Commands of the turn machine, carried out by the session. Sample indices count the caller's audio at 16 kHz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class AnnounceSpeech:
    """Begin an utterance, and tell the client that the caller has started to speak.

    Attributes:
        start: The first sample of the speech.
        reveal: False to leave the client in ignorance until `RevealSpeech`.
    """

    start: int
    reveal: bool = True


@dataclass(frozen=True, slots=True)
class RevealSpeech:
    """Tell the client that the caller has started to speak, which `AnnounceSpeech` has not told it."""


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe samples [start, end) for this revision, and answer with `TranscriptReady`.

    Attributes:
        revision: The revision that the result belongs to.
        start: First sample.
        end: Sample after the last one.
        detect_end_of_turn: Whether to ask the turn detector as well, and to answer with `VerdictReady`.
    """

    revision: int
    start: int
    end: int
    detect_end_of_turn: bool


@dataclass(frozen=True, slots=True)
class StartDraft:
    """Start a speculative reply to the transcript of this revision. Nothing of it may be sent before `StartReply`."""

    revision: int


@dataclass(frozen=True, slots=True)
class DiscardDraft:
    """Discard the speculative reply of this revision, because its turn was committed and is not answered now."""

    revision: int


@dataclass(frozen=True, slots=True)
class CancelRevision:
    """Cancel all work for this revision of the utterance: transcript, verdict and speculative reply."""

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
        speech_end: Sample at which speech ended. The silence from there to `end` belongs to the turn.
        transcript_requested: Whether a `Transcribe` command was sent for this revision. If not, the session transcribes
            the samples [start, end) now.
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
    """Make the silence of the idle timeout, samples [start, end), a turn of the conversation."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class StartReply:
    """Start a reply.

    Attributes:
        draft: The revision whose speculative reply becomes this reply. None for a new reply.
        request: The client's options, from the event `ReplyRequested`. None if a turn caused the reply.
    """

    draft: int | None = None
    request: object | None = None


@dataclass(frozen=True, slots=True)
class PauseReply:
    """Stop the playout of the reply at once, but keep the reply so that `ResumeReply` can continue it.

    `dropped` is True if the client is told to drop the audio that it has not played. Otherwise it plays that audio.
    """

    dropped: bool = True


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """Continue the playout of the paused reply from the last sample that the caller heard."""


@dataclass(frozen=True, slots=True)
class CancelReply:
    """Cancel the reply. `reason` goes to the client in `status_details`: "turn_detected" means speech of the caller."""

    reason: Literal["turn_detected"]


@dataclass(frozen=True, slots=True)
class DismissUtterance:
    """Drop the current utterance, which was announced to the client, without making it a turn.

    Attributes:
        speech_end: Sample at which the utterance's sound ended.
        end: Sample at which the next utterance may begin.
    """

    speech_end: int
    end: int


Command = (
    AnnounceSpeech
    | RevealSpeech
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
