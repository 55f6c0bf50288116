"""Parameters of one load run: number of callers, arrivals, caller behavior and network.

A scenario is a value. The same scenario with the same seed gives the same frozen schedule
(`loadtest.scenario.schedule`). Every report contains the hash of that schedule.

The `Attributes` sections of `Scenario` and `CallerBehavior` are the reference of the `--set` keys. Each entry states
the meaning with its unit, then "Default D." and, for a number, "Range L to H.". A test compares the defaults with the
fields, and the ranges with `SCENARIO_RANGES` and `BEHAVIOR_RANGES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.wire.formats import AudioFormat

MAX_SESSIONS = 20_000
MAX_FOR_S = 4 * 3600.0
MAX_WORKERS = 256

BEHAVIOR_RANGES: Mapping[str, tuple[float, float]] = {
    "barge_in": (0, 1),
    "hang_up": (0, 1),
    "muted": (0, 1),
    "think_s": (0, 600),
    "think_sigma": (0, 3),
    "answer_timeout_s": (0, 600),
}
"""Smallest and largest value of each number in `CallerBehavior`."""

SCENARIO_RANGES: Mapping[str, tuple[float, float]] = {
    "sessions": (1, MAX_SESSIONS),
    "for_s": (1, MAX_FOR_S),
    "workers": (1, MAX_WORKERS),
    "ramp_s": (0, MAX_FOR_S),
    "warm_up_s": (0, MAX_FOR_S),
    "drain_s": (0, 600),
    "seed": (0, 2**63),
    "snr_db": (0, 60),
    "loss": (0, 0.5),
    "silence_ms": (0, 10_000),
    "playout_buffer_ms": (0, 2000),
    "rate_per_s": (0.001, MAX_FOR_S),
    "session_s": (0.1, MAX_FOR_S),
}
"""Smallest and largest value of each number in `Scenario`."""


class Arrivals(Enum):
    """How calls arrive.

    Attributes:
        RAMP: All `sessions` calls arrive evenly over `ramp_s` and last until the end of the measured time.
        POISSON: Calls arrive at a constant rate with exponential gaps.
        BURSTS: As POISSON, but with gamma-distributed gaps whose coefficient of variation is 2.
        DIURNAL: One day compressed into the run. The peak in the middle has nine times the rate of both ends.
        SPIKE: A constant rate that is five times higher from 40% to 60% of the run.
        TRACE: Calls arrive at the times in the CSV file `trace`.
    """

    RAMP = "ramp"
    POISSON = "poisson"
    BURSTS = "bursts"
    DIURNAL = "diurnal"
    SPIKE = "spike"
    TRACE = "trace"


@dataclass(frozen=True, slots=True)
class CallerBehavior:
    """How callers behave: the keys `behavior.KEY`.

    The think time and `barge_in` are drawn for each turn, `hang_up` and `muted` for each call.

    Attributes:
        think_s: Median pause between the end of a reply and the caller's next utterance, in seconds. The pause is
            log-normal; 0 means no pause. Default 2. Range 0 to 600.
        think_sigma: Standard deviation of the logarithm of the pause; 0 makes all pauses equal. Default 0.5. Range 0
            to 3.
        barge_in: Share of replies that the caller interrupts, 0.3 to 1.5 s after their playback starts. Default 0.
            Range 0 to 1.
        hang_up: Share of calls that the caller ends early, after 20% to 90% of their planned length. Default 0. Range
            0 to 1.
        muted: Share of callers who only listen, so that their calls have no turns. Default 0. Range 0 to 1.
        muted_between_turns: If true, a client sends audio only while its caller speaks or waits for an answer; if
            false, it sends silence the rest of the time. Default false.
        answer_timeout_s: Time without an answer after which a turn is unanswered, in seconds after the last sample of
            speech. The turn counts with this latency. Default 15. Range 0 to 600.

    Raises:
        ValueError: A number is outside its range.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # pydantic's configuration, not a field

    think_s: float = 2.0
    think_sigma: float = 0.5
    barge_in: float = 0.0
    hang_up: float = 0.0
    muted: float = 0.0
    muted_between_turns: bool = False
    answer_timeout_s: float = 15.0

    def __post_init__(self) -> None:
        for name, (low, high) in BEHAVIOR_RANGES.items():
            _within(name, getattr(self, name), low, high)


@dataclass(frozen=True, slots=True)
class Scenario:
    """All parameters of a load run.

    Attributes:
        url: OpenAI base URL of the server, for example ws://127.0.0.1:8000/v1. Set by the option `--url`.
        sessions: Number of calls that are open at the same time. For arrivals other than `ramp`, it is the mean of that
            number. Set by the option `--sessions`. Range 1 to 20000.
        for_s: Measured time in seconds. Set by the option `--for`. Range 1 to 14400.
        tier: Latency tier to prove: excellent, good or acceptable. Set by the option `--tier`. Default good.
        arrivals: How calls arrive: ramp, poisson, bursts, diurnal, spike or trace. Default ramp.
        ramp_s: Time over which the calls of a ramp arrive, in seconds. Default 5. Range 0 to 14400.
        warm_up_s: Time before the measured time, after the ramp, in seconds. Its turns are discarded. Default 5. Range
            0 to 14400.
        drain_s: Longest wait after the measured time for turns that are still open, in seconds. Default 20. Range 0 to
            600.
        seed: Seed of everything that is drawn at random. Default 1. Range 0 to 9223372036854775808.
        codec: Audio format in both directions: pcm16 (24 kHz), pcmu or pcma (G.711, 8 kHz). Default pcm16.
        behavior: Caller behavior; see `CallerBehavior` for the keys `behavior.KEY`. Default: the default of every key.
        regions: Network routes of the callers, as a list of NAME, NAME+relay or NAME=WEIGHT. The names are local,
            same-region, us-east-west, us-europe and us-asia. Default local.
        background: Sound around the callers, besides what their recordings have: none, noise, babble or music. Default
            none.
        snr_db: Ratio of the callers' speech to `background`, in decibels. Default 15. Range 0 to 60.
        loss: Share of messages whose first transmission is lost, in addition to the loss of the route. A lost message
            is late, because TCP repeats it. Default 0. Range 0 to 0.5.
        turn_detection: End-of-turn detection of the server: semantic_vad, or server_vad with `silence_ms`. Default
            semantic_vad.
        silence_ms: Silence that ends a turn with server_vad, in milliseconds. Default 200. Range 0 to 10000.
        workers: Number of generator processes. One process carries about 750 calls. Default 1. Range 1 to 256.
        rate_per_s: Arrivals in calls per second, for all arrivals except ramp and trace; the base rate of spike and
            the mean rate of diurnal. Default: sessions / session_s. Range 0.001 to 14400.
        session_s: Mean of the exponential call length in seconds, for all arrivals except ramp, and for trace lines
            without a length. Default: 60. Range 0.1 to 14400.
        trace: Path of a CSV file for `arrivals=trace`. Each line is SECONDS or SECONDS,LENGTH: the arrival in seconds
            after the start of the run, and the call length in seconds. Default: none.
        clips: Recordings that the callers speak, as a list of paths. Default: the human speech of the model store.
        api_key: API key that the server expects. Set by the environment variable REJOINDER_API_KEY. Default none.
        playout_buffer_ms: Audio that a caller's player buffers before playback starts, in milliseconds. Default 60.
            Range 0 to 2000.
        owned: If true, the server may be on another machine. Set it only if you operate that server. Default false.
        fallbacks: Base URLs of further servers. A call that `url` does not take goes to the first of them that does.
            Set by the option `--nearest`. Default: none.
        resume: If true, a caller whose connection is lost connects again and continues the conversation, if the server
            offers that. Default true.
        ray_address: HOST:PORT of a Ray cluster whose nodes run the workers. Default: this machine runs them.

    Raises:
        ValueError: A number is outside its range, `url` is not a WebSocket URL, or `background` or `turn_detection` is
            unknown.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # pydantic's configuration, not a field

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
    background: str = "none"
    snr_db: float = 15.0
    loss: float = 0.0
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
    fallbacks: tuple[str, ...] = ()
    resume: bool = True
    ray_address: str = ""

    def __post_init__(self) -> None:
        for name, (low, high) in SCENARIO_RANGES.items():
            if (value := getattr(self, name)) is not None:
                _within(name, value, low, high)
        for url in (self.url, *self.fallbacks):
            if not url.startswith(("ws://", "wss://")):
                raise ValueError(f"url must begin with ws:// or wss://, not {url!r}")
        if self.background not in ("none", "noise", "babble", "music"):
            raise ValueError(f"background must be none, noise, babble or music, not {self.background!r}")
        if self.turn_detection not in ("semantic_vad", "server_vad"):
            raise ValueError(f"turn_detection must be semantic_vad or server_vad, not {self.turn_detection!r}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, not {value:g}")
