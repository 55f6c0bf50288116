"""State of the turn machine, and the configuration that it follows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from rejoinder.core.settings.settings import BargeInSettings
from rejoinder.core.turns.commands import Command
from rejoinder.core.turns.endpointing import DetectionMode, EndpointRule, PauseStats, TurnDetection


class CallerState(Enum):
    """What the caller is doing, as the turn machine sees it.

    QUIET: no utterance is open. SPEAKING: the caller is speaking. ENDPOINTING: speech has stopped, and the machine
    is deciding whether the turn is over.
    """

    QUIET = "quiet"
    SPEAKING = "speaking"
    ENDPOINTING = "endpointing"


class AgentState(Enum):
    """What the agent is doing, as the turn machine sees it.

    IDLE: no reply is under way. REPLYING: a reply is under way. PAUSED: the caller's speech has paused the playout of a
    reply. REPLY_QUEUED: a reply is under way, and the reply to a newer turn starts after it.
    """

    IDLE = "idle"
    REPLYING = "replying"
    PAUSED = "paused"
    REPLY_QUEUED = "reply_queued"


class BargeInCheck(Enum):
    """Progress of the barge-in check: are the words of an utterance addressed to the agent?

    An utterance is checked if it began over a reply, or so soon after a reply that it may be an echo.

    NOT_NEEDED: the utterance needs no check, or has passed it. PENDING: its words are not known yet. OVERDUE: its
    words are not known yet, although the silence that ends a turn has passed. REJECTED: it has no words that are
    addressed to the agent.
    """

    NOT_NEEDED = "not_needed"
    PENDING = "pending"
    OVERDUE = "overdue"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class TurnRules:
    """Turn-taking configuration of one session, from its client and its operator.

    Attributes:
        detection: The session's `turn_detection`.
        endpointing: Settings and table of the silence that ends a turn.
        max_utterance_s: Longest utterance in seconds. A longer one is committed as a turn at this length.
        drafts: Whether a speculative reply may start before its turn ends.
        barge_in: Settings of speech over a reply.
        min_speech_ms: Minimum length of speech in milliseconds. A shorter utterance over a reply counts as noise.
        announces_words: True if the client learns of speech that pauses a reply only when its words address the agent.
    """

    detection: TurnDetection
    endpointing: EndpointRule
    max_utterance_s: float
    drafts: bool = False
    barge_in: BargeInSettings = field(default_factory=BargeInSettings)
    min_speech_ms: float = 96
    announces_words: bool = False

    @property
    def auto_reply(self) -> bool:
        """True if a turn is answered without a request from the client."""
        return self.detection.mode is not DetectionMode.NONE and self.detection.create_response

    @property
    def idle_timeout_s(self) -> float | None:
        """Seconds of silence after a reply until the agent speaks again, or None if there is no idle timeout.

        A session without automatic replies has no idle timeout. Only the mode server_vad has one.
        """
        idle_ms = self.detection.idle_timeout_ms
        return idle_ms / 1000 if idle_ms is not None and self.auto_reply else None

    @property
    def pauses_replies(self) -> bool:
        """True if speech over a reply first pauses the reply, and only words cancel it."""
        return self.detection.interrupt_response and self.barge_in.min_words > 0


@dataclass(frozen=True, slots=True)
class TurnState:
    """State of the turn machine for one session.

    Sample indices count the caller's audio at 16 kHz. Times are monotonic seconds, `-inf` for "never".

    Attributes:
        caller: Activity of the caller.
        agent: Activity of the agent.
        revision: Number of the current version of the utterance. Results for an older revision are ignored.
        start: First sample of the utterance. While QUIET, the end of the last utterance.
        speech_end: Sample at which the newest speech ended.
        required_silence_s: Silence that ends the turn, in seconds. None until it is decided.
        barge_in_check: Progress of the check whether the utterance is addressed to the agent.
        pauses: Number and lengths of this caller's pauses inside turns.
        transcript_requested_at: When the transcript was requested at the newest tentative end of speech, or `-inf` if
            the speech was too short to be transcribed.
        reply_paused_at: When a reply was last paused.
        reply_ended_at: When a reply last ended.
        unannounced: True while the client does not know of the utterance, because its words are being checked.
    """

    caller: CallerState = CallerState.QUIET
    agent: AgentState = AgentState.IDLE
    revision: int = 0
    start: int = 0
    speech_end: int = 0
    required_silence_s: float | None = None
    barge_in_check: BargeInCheck = BargeInCheck.NOT_NEEDED
    pauses: PauseStats = field(default_factory=PauseStats)
    transcript_requested_at: float = -math.inf
    reply_paused_at: float = -math.inf
    reply_ended_at: float = -math.inf
    unannounced: bool = False


TurnStep = tuple[TurnState, tuple[Command, ...]]
"""The state after an event, and the commands to carry out, in order."""
