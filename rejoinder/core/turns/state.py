"""What the turn machine remembers, and the rules it goes by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from rejoinder.core.settings.settings import BargeInSettings, EndpointingSettings
from rejoinder.core.turns.commands import Command
from rejoinder.core.turns.endpointing import DetectionMode, PauseStats, TurnDetection


class CallerState(Enum):
    QUIET = "quiet"
    SPEAKING = "speaking"
    ENDPOINTING = "endpointing"


class AgentState(Enum):
    """PAUSED: replying, but silent until it is known whether the caller means it."""

    IDLE = "idle"
    REPLYING = "replying"
    PAUSED = "paused"
    REPLY_QUEUED = "reply_queued"


class BargeInCheck(Enum):
    """Whether the utterance has to prove itself: it began over a reply, or so near behind it that it may be its echo.

    NOT_NEEDED: no, or it has. PENDING: it is not known what was said. OVERDUE: nor is it now that the silence has
    lasted long enough
    to take the turn. REJECTED: no words were heard that are meant for us.
    """

    NOT_NEEDED = "not_needed"
    PENDING = "pending"
    OVERDUE = "overdue"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class TurnRules:
    """What the client and the operator configured. An utterance longer than `max_utterance_s` is cut.

    `drafts`: a reply may be begun before its turn is taken. `min_speech_ms`: what is shorter was no speech at all.
    """

    detection: TurnDetection
    endpointing: EndpointingSettings
    max_utterance_s: float
    drafts: bool = False
    barge_in: BargeInSettings = field(default_factory=BargeInSettings)
    min_speech_ms: float = 96

    @property
    def replies(self) -> bool:
        """Whether a turn is answered without being asked for."""
        return self.detection.mode is not DetectionMode.NONE and self.detection.create_response

    @property
    def idle_s(self) -> float | None:
        """How long nobody may speak before the caller is asked again; None: for ever (only server_vad has it)."""
        idle_ms = self.detection.idle_timeout_ms
        return idle_ms / 1000 if idle_ms is not None and self.replies else None

    @property
    def pauses(self) -> bool:
        """Whether speech over a reply pauses it first, and only words end it."""
        return self.detection.interrupt_response and self.barge_in.min_words > 0


@dataclass(frozen=True, slots=True)
class TurnState:
    """`start` and `speech_end` are samples; `wait` is the required silence in seconds, None while undecided; `habit` is
    how this caller pauses.

    Monotonic seconds: `asked_at` of the newest soft end (never, if its words were not asked for), `paused_at` of the
    newest pause of a reply, `replied_at` of the newest reply's end.
    """

    caller: CallerState = CallerState.QUIET
    agent: AgentState = AgentState.IDLE
    revision: int = 0
    start: int = 0
    speech_end: int = 0
    wait: float | None = None
    claim: BargeInCheck = BargeInCheck.NOT_NEEDED
    habit: PauseStats = field(default_factory=PauseStats)
    asked_at: float = -math.inf
    paused_at: float = -math.inf
    replied_at: float = -math.inf


TurnStep = tuple[TurnState, tuple[Command, ...]]
