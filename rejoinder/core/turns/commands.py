"""What the turn machine commands; the session carries it out. Samples are the caller's own audio at 16 kHz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class AnnounceSpeech:
    """Tell the client that the caller speaks, from sample `start`."""

    start: int


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe samples [start, end) and judge the turn, both for this revision."""

    revision: int
    start: int
    end: int
    judge: bool


@dataclass(frozen=True, slots=True)
class StartDraft:
    """Begin the reply to what Hear of this revision finds out, and let nothing of it out."""

    revision: int


@dataclass(frozen=True, slots=True)
class DiscardDraft:
    """Drop the draft of this revision: its turn is taken, but not answered by it."""

    revision: int


@dataclass(frozen=True, slots=True)
class CancelRevision:
    """Cancel and drop everything that was begun for this revision, its draft too."""

    revision: int


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Send WaitOver for this revision at monotonic time `at`."""

    revision: int
    at: float


@dataclass(frozen=True, slots=True)
class CommitTurn:
    """The utterance [start, end) is a turn of the caller's; `heard` says that Hear was already asked for it."""

    revision: int
    start: int
    end: int
    speech_end: int
    heard: bool


@dataclass(frozen=True, slots=True)
class StartIdleTimer:
    """Send NobodySpoke for this revision at monotonic time `at`."""

    revision: int
    at: float


@dataclass(frozen=True, slots=True)
class CommitIdleTurn:
    """The caller let [start, end) pass in silence: that is its turn."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class StartReply:
    """Start a reply.

    Attributes:
        draft: The revision whose draft becomes the reply, if there is one.
        request: The payload of the `ReplyRequested` that asked for the reply. None if a turn started it.
    """

    draft: int | None = None
    request: object | None = None


@dataclass(frozen=True, slots=True)
class PauseReply:
    """Fall silent at once, for as long as it takes to know whether the caller means it."""


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """Go on with the paused reply, from the last sample that was heard."""


@dataclass(frozen=True, slots=True)
class CancelReply:
    reason: Literal["turn_detected"]


@dataclass(frozen=True, slots=True)
class DismissUtterance:
    """The announced utterance, whose sound ended at `speech_end`, is no turn; what follows sample `end` is another."""

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
