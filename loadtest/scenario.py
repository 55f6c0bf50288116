"""What one load run does: how many callers, how they arrive, how they behave, and over which network.

A scenario is a value: the same one with the same seed gives the same frozen schedule (`loadtest.schedule`), whose hash
every report carries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from rejoinder.core.budgets import Tier

MAX_SESSIONS = 20_000
MAX_FOR_S = 4 * 3600.0


class Codec(Enum):
    """How audio travels in both directions: the wire's format types, and bytes of payload a 20 ms frame."""

    PCM16 = "pcm16"
    PCMU = "g711_ulaw"
    PCMA = "g711_alaw"

    @property
    def rate(self) -> int:
        """Samples a second."""
        return 24_000 if self is Codec.PCM16 else 8_000

    @property
    def sample_bytes(self) -> int:
        return 2 if self is Codec.PCM16 else 1


class Arrivals(Enum):
    """How sessions arrive. `RAMP` opens all of them evenly over `ramp_s` and holds them: what --sessions means."""

    RAMP = "ramp"
    POISSON = "poisson"
    BURSTS = "bursts"
    DIURNAL = "diurnal"
    SPIKE = "spike"
    TRACE = "trace"


@dataclass(frozen=True, slots=True)
class Manner:
    """How callers behave; probabilities are drawn for each turn (`barge_in`) or each call (the others).

    `think_s` is the median of a log-normal pause between hearing the end of a reply and speaking again.
    `muted_between_turns`: the client sends nothing while it neither speaks nor waits for an answer.
    """

    think_s: float = 2.0
    think_sigma: float = 0.5
    barge_in: float = 0.0
    hang_up: float = 0.0
    muted: float = 0.0
    muted_between_turns: bool = False
    answer_timeout_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything a run depends on. Times are seconds; `sessions` is the most that are open at once."""

    url: str
    sessions: int
    for_s: float
    tier: Tier = Tier.GOOD
    arrivals: Arrivals = Arrivals.RAMP
    ramp_s: float = 5.0
    warm_up_s: float = 5.0
    drain_s: float = 20.0
    seed: int = 1
    codec: Codec = Codec.PCM16
    manner: Manner = field(default_factory=Manner)
    regions: tuple[str, ...] = ("local",)
    turn_detection: str = "semantic_vad"
    silence_ms: int = 200
    workers: int = 1
    rate_per_s: float | None = None
    session_s: float | None = None
    trace: str = ""
    clips: tuple[str, ...] = ()
    api_key: str = "none"
    playout_buffer_ms: float = 60.0
