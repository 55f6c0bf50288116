"""The frozen schedule of a run: when each call arrives, from which route, and how its caller behaves.

The load is open-loop between calls: arrivals never wait for the system under test. Waiting would lower the load exactly
when the system is slow and hide the slowness (coordinated omission).

The schedule is drawn before the run from the scenario's seed alone, and it is identified by its hash. Two runs with the
same hash offered the same load. Within a call, the clip, the pause and the interruption of each turn are drawn from the
call's seed and the turn's number. They do not depend on how the system answered earlier turns.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from loadtest.scenario.network import weighted
from loadtest.scenario.scenario import MAX_SESSIONS, Arrivals, CallerBehavior, Scenario
from rejoinder.core.errors import ConfigError

BURST_SHAPE = 0.25
"""Shape of the gamma-distributed gaps of `bursts`: a coefficient of variation of 2, four times Poisson's variance."""

SPIKE = (0.4, 0.6, 5.0)
"""Start and end of `spike` as fractions of the run, and the factor on the base rate."""

DIURNAL_SWING = 0.8
"""Relative amplitude of `diurnal`: the rate is 1.8 times the mean at the peak and 0.2 times at the ends."""

BARGE_IN_S = (0.3, 1.5)
"""Shortest and longest time from the start of a reply's playback to the caller's interruption, in seconds."""

HANG_UP_SHARE = (0.2, 0.9)
"""Smallest and largest fraction of a call after which an early hang-up happens."""

FRAME_SLOTS = 20
"""Number of 1 ms slots in a 20 ms frame. Each call sends its frames in one of them."""


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """Plan of one turn: what the caller says, and when.

    Attributes:
        clip: Index of the utterance to speak.
        think_s: Pause before the utterance in seconds.
        barge_in_s: Time from the start of the reply's playback to the interruption in seconds, or None for no
            interruption.
    """

    clip: int
    think_s: float
    barge_in_s: float | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the schedule.

    Attributes:
        number: Position of the call in order of arrival, from 0.
        at_s: Arrival in seconds after the start of the run.
        ends_s: End in seconds after the start of the run. The caller starts no turn after it.
        region: Name of the network route.
        slot: Millisecond within 20 ms in which the call's frames are sent, 0 to 19.
        seed: Seed of everything that is drawn within the call.
        listener: True if the caller never speaks.
        hangs_up: True if the caller hangs up at `ends_s`, even within a turn.
    """

    number: int
    at_s: float
    ends_s: float
    region: str
    slot: int
    seed: int
    listener: bool = False
    hangs_up: bool = False

    def turn(self, number: int, behavior: CallerBehavior, clips: int) -> TurnPlan:
        """Return the plan of a turn. It depends only on the seed of the call and the number of the turn.

        Args:
            number: Number of the turn within the call, from 1.
            behavior: Behavior of the callers in the scenario.
            clips: Number of utterances to choose from.
        """
        draw = random.Random(self.seed * 1_000_003 + number)
        think_s = behavior.think_s * math.exp(behavior.think_sigma * draw.gauss(0, 1)) if behavior.think_s else 0.0
        barge_in_s = draw.uniform(*BARGE_IN_S) if draw.random() < behavior.barge_in else None
        return TurnPlan(draw.randrange(clips), think_s, barge_in_s)


@dataclass(frozen=True, slots=True)
class Schedule:
    """All calls of a run.

    Attributes:
        calls: The calls in order of arrival.
        measure_from_s: Start of the measured time in seconds after the start of the run.
        measure_to_s: End of the measured time in seconds after the start of the run.
        sha256: Hash of the calls and the behavior, in hexadecimal.
    """

    calls: tuple[Call, ...]
    measure_from_s: float
    measure_to_s: float
    sha256: str

    def shard(self, worker: int, workers: int) -> tuple[Call, ...]:
        """Return the calls of worker number `worker` (from 0) of `workers`.

        These are every `workers`-th call, starting with number `worker`, so each worker has calls throughout the run.
        """
        return self.calls[worker::workers]


def plan(scenario: Scenario) -> Schedule:
    """Draw the schedule of a scenario from its seed, and return it.

    Raises:
        ConfigError: No call or too many calls arrive, a route is unknown, or the trace cannot be read.
    """
    draw = np.random.default_rng(scenario.seed)
    arrivals = _ARRIVALS[scenario.arrivals](scenario, draw)
    if len(arrivals) > MAX_SESSIONS:
        raise ConfigError(
            f"{len(arrivals)} calls are too many.", f"A run has at most {MAX_SESSIONS} calls.", "--sessions"
        )
    if not arrivals:
        raise ConfigError(
            "no call arrives within the run.", "Increase rate_per_s, --sessions or --for.", field="--set rate_per_s"
        )
    names, weights = zip(*(weighted(region) for region in scenario.regions), strict=True)
    shares = np.array(weights) / sum(weights)
    regions = draw.choice(len(names), len(arrivals), p=shares)
    behavior = scenario.behavior
    listeners, hang_ups = (draw.random(len(arrivals)) < share for share in (behavior.muted, behavior.hang_up))
    seeds = draw.integers(0, 2**31, len(arrivals))
    cuts = np.where(hang_ups, draw.uniform(*HANG_UP_SHARE, len(arrivals)), 1.0)
    calls = tuple(
        Call(
            number=number,
            at_s=round(at_s, 6),
            ends_s=round(at_s + (ends_s - at_s) * float(cuts[number]), 6),
            region=names[regions[number]],
            slot=number % FRAME_SLOTS,
            seed=int(seeds[number]),
            listener=bool(listeners[number]),
            hangs_up=bool(hang_ups[number]),
        )
        for number, (at_s, ends_s) in enumerate(arrivals)
    )
    begin = _lead_s(scenario)
    return Schedule(calls, begin, begin + scenario.for_s, _hash(calls, behavior))


def _lead_s(scenario: Scenario) -> float:
    """Return the seconds from the start of the run to the measured time: warm-up, and ramp for arrivals `ramp`."""
    return (scenario.ramp_s if scenario.arrivals is Arrivals.RAMP else 0.0) + scenario.warm_up_s


def _hash(calls: tuple[Call, ...], behavior: CallerBehavior) -> str:
    document = json.dumps([asdict(behavior), [asdict(call) for call in calls]], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


# -- arrivals: each function returns the (start, end) of every call in seconds after the start of the run -------------

_Times = list[tuple[float, float]]


def _ramp(scenario: Scenario, draw: np.random.Generator) -> _Times:
    end = _lead_s(scenario) + scenario.for_s
    step = scenario.ramp_s / max(1, scenario.sessions)
    return [(number * step, end) for number in range(scenario.sessions)]


def _poisson(scenario: Scenario, draw: np.random.Generator) -> _Times:
    return _renewal(scenario, draw, lambda: float(draw.exponential(1 / _rate(scenario))))


def _bursts(scenario: Scenario, draw: np.random.Generator) -> _Times:
    scale = 1 / (_rate(scenario) * BURST_SHAPE)
    return _renewal(scenario, draw, lambda: float(draw.gamma(BURST_SHAPE, scale)))


def _diurnal(scenario: Scenario, draw: np.random.Generator) -> _Times:
    return _thinned(scenario, draw, lambda share: 1 - DIURNAL_SWING * math.cos(2 * math.pi * share), 1 + DIURNAL_SWING)


def _spike(scenario: Scenario, draw: np.random.Generator) -> _Times:
    begin, end, factor = SPIKE
    return _thinned(scenario, draw, lambda share: factor if begin <= share < end else 1.0, factor)


def _trace(scenario: Scenario, draw: np.random.Generator) -> _Times:
    """Return the (start, end) times of the calls in the CSV file `scenario.trace` that arrive before the run ends.

    Each line has the arrival in seconds after the start of the run, and optionally the length of the call in seconds.
    A missing length is drawn at random, with `draw`.
    """
    try:
        with Path(scenario.trace).open(newline="", encoding="utf-8") as file:
            rows = [[float(cell) for cell in row[:2]] for row in csv.reader(file) if row]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{scenario.trace!r} is not a trace ({error}).", "Write SECONDS,LENGTH lines.", "--set trace"
        ) from None
    times = [(row[0], row[0] + (row[1] if len(row) > 1 else _length_s(scenario, draw))) for row in rows]
    if any(not 0 <= at < ends < math.inf for at, ends in times):
        raise ConfigError(
            "a call in the trace has a negative arrival or a length that is not positive.",
            "Write SECONDS,LENGTH lines.",
            "--set trace",
        )
    return sorted((at, ends) for at, ends in times if at < _end_s(scenario))


def _renewal(scenario: Scenario, draw: np.random.Generator, gap: Callable[[], float]) -> _Times:
    """Return the (start, end) times, in seconds, of calls that arrive with independent random gaps.

    Args:
        scenario: Scenario with the length of the run and the mean length of a call.
        draw: Source of randomness for the lengths of the calls.
        gap: Function that draws the seconds from one arrival to the next.
    """
    times: _Times = []
    at = gap()
    while at < _end_s(scenario) and len(times) <= MAX_SESSIONS:
        times.append((at, at + _length_s(scenario, draw)))
        at += gap()
    return times


def _thinned(scenario: Scenario, draw: np.random.Generator, shape: Callable[[float], float], peak: float) -> _Times:
    """Return the (start, end) times, in seconds, of calls that arrive at random with a rate that changes in the run.

    The arrivals are a Poisson process, drawn by the thinning of Lewis and Shedler.

    Args:
        scenario: Scenario with the base rate and the length of the run.
        draw: Source of randomness.
        shape: Function from a fraction of the run (0 to 1) to the factor on the base rate at that time.
        peak: Largest value of `shape`.
    """
    end, rate = _end_s(scenario), _rate(scenario)
    times: _Times = []
    at = 0.0
    while len(times) <= MAX_SESSIONS:
        at += float(draw.exponential(1 / (rate * peak)))
        if at >= end:
            break
        if draw.random() * peak < shape(at / end):
            times.append((at, at + _length_s(scenario, draw)))
    return times


def _end_s(scenario: Scenario) -> float:
    return _lead_s(scenario) + scenario.for_s


def _length_s(scenario: Scenario, draw: np.random.Generator) -> float:
    return float(draw.exponential(_mean_s(scenario)))


def _mean_s(scenario: Scenario) -> float:
    return scenario.session_s or 60.0


def _rate(scenario: Scenario) -> float:
    """Return the mean or base rate of arrivals in calls per second.

    It is `rate_per_s`, or else the rate that keeps `sessions` calls open on average (Little's law).
    """
    return scenario.rate_per_s or scenario.sessions / _mean_s(scenario)


_ARRIVALS: dict[Arrivals, Callable[[Scenario, np.random.Generator], _Times]] = {
    Arrivals.RAMP: _ramp,
    Arrivals.POISSON: _poisson,
    Arrivals.BURSTS: _bursts,
    Arrivals.DIURNAL: _diurnal,
    Arrivals.SPIKE: _spike,
    Arrivals.TRACE: _trace,
}
