"""What the turn machine remembers, and the rules it goes by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from rejoinder.core.settings.settings import BargeInSettings, EndpointingSettings
from rejoinder.core.turns.commands import Command
from rejoinder.core.turns.endpointing import DetectionMode, Habit, TurnDetection


class Caller(Enum):
    QUIET = "quiet"
    SPEAKING = "speaking"
    SETTLING = "settling"


class Agent(Enum):
    """PAUSED: replying, but silent until it is known whether the caller means it."""

    IDLE = "idle"
    REPLYING = "replying"
    PAUSED = "paused"
    OWING = "owing"


class Claim(Enum):
    """Whether the utterance has to prove itself: it began over a reply, or so near behind it that it may be its echo.

    NONE: no, or it has. OPEN: it is not known what was said. DUE: nor is it now that the silence has lasted long enough
    to take the turn. DENIED: no words were heard that are meant for us.
    """

    NONE = "none"
    OPEN = "open"
    DUE = "due"
    DENIED = "denied"


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

    caller: Caller = Caller.QUIET
    agent: Agent = Agent.IDLE
    revision: int = 0
    start: int = 0
    speech_end: int = 0
    wait: float | None = None
    claim: Claim = Claim.NONE
    habit: Habit = field(default_factory=Habit)
    asked_at: float = -math.inf
    paused_at: float = -math.inf
    replied_at: float = -math.inf


Step = tuple[TurnState, tuple[Command, ...]]
