"""What one load run does: how many callers, how they arrive, how they behave, and over which network.

A scenario is a value: the same one with the same seed gives the same frozen schedule (`loadtest.scenario.schedule`),
whose hash
every report carries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.wire.formats import AudioFormat

MAX_SESSIONS = 20_000
MAX_FOR_S = 4 * 3600.0
MAX_WORKERS = 256


class Arrivals(Enum):
    """How sessions arrive. `RAMP` opens all of them evenly over `ramp_s` and holds them: what --sessions means."""

    RAMP = "ramp"
    POISSON = "poisson"
    BURSTS = "bursts"
    DIURNAL = "diurnal"
    SPIKE = "spike"
    TRACE = "trace"


@dataclass(frozen=True, slots=True)
class CallerBehavior:
    """How callers behave; probabilities are drawn for each turn (`barge_in`) or each call (the others).

    think_s, think_sigma  median and shape of a log-normal pause between hearing the end of a reply and speaking again
    barge_in              share of replies that a caller speaks over; `hang_up`: of calls that end early, at any moment
    muted                 share of callers who only listen: a call without a turn
    muted_between_turns   the client sends nothing while it neither speaks nor waits for an answer
    answer_timeout_s      a turn without an answer so long after its last word is unanswered, and counts that much
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # not a field: how pydantic reads this class

    think_s: float = 2.0
    think_sigma: float = 0.5
    barge_in: float = 0.0
    hang_up: float = 0.0
    muted: float = 0.0
    muted_between_turns: bool = False
    answer_timeout_s: float = 15.0

    def __post_init__(self) -> None:
        for name in ("barge_in", "hang_up", "muted"):
            _within(name, getattr(self, name), 0, 1)
        for name, high in (("think_s", 600), ("think_sigma", 3), ("answer_timeout_s", 600)):
            _within(name, getattr(self, name), 0, high)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything a run depends on. Times are seconds.

    sessions            calls held at once; of the arrivals that are no ramp, open on average
    for_s, warm_up_s    measured time, and what is held before it and discarded; `drain_s`: for the last answers
    tier, seed          the limit to prove, and what all that is drawn comes from
    ramp_s              over which the calls of a ramp arrive
    rate_per_s          calls a second, instead of what keeps `sessions` open; `session_s`: their mean length
    codec               audio both ways: pcm16, pcmu or pcma
    regions             routes of `loadtest.scenario.network`: NAME, NAME+relay, NAME=WEIGHT
    turn_detection      semantic_vad, or server_vad with `silence_ms`
    workers             generator processes, about 750 calls each
    clips, trace        WAV files to say (none: the store's human speech), and a CSV of arrivals
    api_key             what the server wants (the commands take REJOINDER_API_KEY)
    playout_buffer_ms   how much audio a caller's player gathers before it begins
    ray_address         a Ray cluster whose nodes run the workers; "" runs them on this machine
    owned               the server is the tester's own, so load may leave this machine
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # as above

    url: str
    sessions: int
    for_s: float
    tier: Tier = Tier.GOOD
    arrivals: Arrivals = Arrivals.RAMP
    ramp_s: float = 5.0
    warm_up_s: float = 5.0
    drain_s: float = 20.0
    seed: int = 1
    codec: AudioFormat = AudioFormat.PCM
    behavior: CallerBehavior = field(default_factory=CallerBehavior)
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
    owned: bool = False
    ray_address: str = ""

    def __post_init__(self) -> None:
        bounds = {
            "sessions": (1, MAX_SESSIONS),
            "for_s": (1, MAX_FOR_S),
            "workers": (1, MAX_WORKERS),
            "ramp_s": (0, MAX_FOR_S),
            "warm_up_s": (0, MAX_FOR_S),
            "drain_s": (0, 600),
            "seed": (0, 2**63),
            "silence_ms": (0, 10_000),
            "playout_buffer_ms": (0, 2000),
        }
        for name, (low, high) in bounds.items():
            _within(name, getattr(self, name), low, high)
        for name, least in (("rate_per_s", 0.001), ("session_s", 0.1)):
            if (value := getattr(self, name)) is not None:
                _within(name, value, least, MAX_FOR_S)
        if not self.url.startswith(("ws://", "wss://")):
            raise ValueError(f"url must begin with ws:// or wss://, not {self.url!r}")
        if self.turn_detection not in ("semantic_vad", "server_vad"):
            raise ValueError(f"turn_detection is semantic_vad or server_vad, not {self.turn_detection!r}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, not {value:g}")
