"""Events of the turn machine. Events of speech are defined in `rejoinder.core.turns.speech_detector`.

Sample indices count the caller's audio at 16 kHz. `processed` is the sample up to which voice activity is decided. An
event with an old `revision` is a result for an earlier version of the utterance, and is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

from rejoinder.core.turns.speech_detector import SoftEnd, SpeechResumed, SpeechStarted


@dataclass(frozen=True, slots=True)
class VerdictReady:
    """The probability that the turn is over is known for a revision, or no evidence came in time.

    The event comes again, with another probability, when more evidence is known.

    Attributes:
        revision: The revision that was judged.
        probability: The probability that the turn is over, 0 to 1. None if nothing is known yet.
        processed: Sample up to which voice activity is decided.
    """

    revision: int
    probability: float | None
    processed: int


@dataclass(frozen=True, slots=True)
class TranscriptReady:
    """The transcript of a whole revision is known, or its speech-to-text request has failed.

    Attributes:
        revision: The revision that was transcribed.
        addressed: Whether its words are addressed to the agent (`rejoinder.core.turns.barge_in`). True if
            speech-to-text failed, so that an outage does not cost the caller a turn.
        processed: Sample up to which voice activity is decided.
    """

    revision: int
    addressed: bool
    processed: int


@dataclass(frozen=True, slots=True)
class InterimReady:
    """An interim transcript is known while the caller is still speaking.

    Attributes:
        revision: The revision that was transcribed.
        addressed: Whether the words so far are addressed to the agent (`rejoinder.core.turns.barge_in`).
    """

    revision: int
    addressed: bool


@dataclass(frozen=True, slots=True)
class AudioProcessed:
    """Voice activity detection has processed the caller's audio up to sample `processed`."""

    processed: int


@dataclass(frozen=True, slots=True)
class SilenceElapsed:
    """The timer of `WaitUntil` has fired: the silence that ends the turn has passed.

    Voice activity is decided for all audio that was received before the timer fired.
    """

    revision: int


@dataclass(frozen=True, slots=True)
class CommitRequested:
    """The client ends the turn at sample `end` (input_audio_buffer.commit). It requests the reply separately."""

    end: int


@dataclass(frozen=True, slots=True)
class ClearRequested:
    """The client drops the uncommitted audio before sample `end` (input_audio_buffer.clear)."""

    end: int


@dataclass(frozen=True, slots=True)
class ReplyRequested:
    """The client asks for a reply (response.create). The session sends this only while no response is open.

    Attributes:
        request: The client's options for the reply. The turn machine only copies them to `StartReply`.
    """

    request: object | None = None


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """The reply has ended: it was played to its end, it failed, or the client cancelled it."""


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    """The timer of `StartIdleTimer` has fired.

    The samples [start, end) are the caller's audio that was received while the timer ran.
    """

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
