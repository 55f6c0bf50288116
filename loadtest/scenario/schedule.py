"""The frozen plan of a run: which calls arrive when, from where, and how each caller will behave.

Open loop between calls: arrivals never wait for the system (load-facts, section 2). The plan is drawn before the run
from the scenario's seed alone, and its hash names it: two runs with one hash offered the same load.
Within a call a caller lives in real time; what it draws there (clips, pauses, interruptions) comes from the call's own
seed and the turn's number, so it does not depend on what the system did before.
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
"""Of the gamma gaps of `bursts`: a coefficient of variation of 2, four times the variance of a Poisson stream."""

SPIKE = (0.4, 0.6, 5.0)
"""`spike`: from and to (shares of the run), and how many times the base rate."""

DIURNAL_SWING = 0.8
"""`diurnal`: one day compressed into the run; the night has a ninth of the day's rate."""

BARGE_IN_S = (0.3, 1.5)
"""How long after a reply begins to sound a caller speaks over it."""

HANG_UP_SHARE = (0.2, 0.9)
"""After which share of its call a caller hangs up who does."""

FRAME_SLOTS = 20


@dataclass(frozen=True, slots=True)
class TurnPlan:
    """`think_s` before speaking; `barge_in_s` after the reply begins to sound, None if the caller hears it out."""

    clip: int
    think_s: float
    barge_in_s: float | None


@dataclass(frozen=True, slots=True)
class Call:
    """One caller. Times are seconds after the start; `slot`: the millisecond of its frames within 20 ms."""

    number: int
    at_s: float
    ends_s: float
    region: str
    slot: int
    seed: int
    listener: bool = False
    hangs_up: bool = False

    def turn(self, number: int, behavior: CallerBehavior, clips: int) -> TurnPlan:
        """The `number`-th turn, whatever came before it."""
        draw = random.Random(self.seed * 1_000_003 + number)
        think_s = behavior.think_s * math.exp(behavior.think_sigma * draw.gauss(0, 1)) if behavior.think_s else 0.0
        barge_in_s = draw.uniform(*BARGE_IN_S) if draw.random() < behavior.barge_in else None
        return TurnPlan(draw.randrange(clips), think_s, barge_in_s)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The calls in order of arrival; results count from `measure_from_s` to `measure_to_s`."""

    calls: tuple[Call, ...]
    measure_from_s: float
    measure_to_s: float
    sha256: str

    def shard(self, worker: int, workers: int) -> tuple[Call, ...]:
        """Every `workers`-th call: each worker meets the whole profile."""
        return self.calls[worker::workers]


def plan(scenario: Scenario) -> Schedule:
    """Draw the schedule of a scenario; raises ConfigError naming the option that makes none possible."""
    draw = np.random.default_rng(scenario.seed)
    arrivals = _ARRIVALS[scenario.arrivals](scenario, draw)
    if len(arrivals) > MAX_SESSIONS:
        raise ConfigError(f"{len(arrivals)} calls are too many.", f"At most {MAX_SESSIONS} in a run.", "--sessions")
    if not arrivals:
        raise ConfigError("no call arrives.", "Raise rate_per_s, --sessions or --for.", field="--set rate_per_s")
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
    """What comes before the measured time: the ramp if there is one, and the warm-up."""
    return (scenario.ramp_s if scenario.arrivals is Arrivals.RAMP else 0.0) + scenario.warm_up_s


def _hash(calls: tuple[Call, ...], behavior: CallerBehavior) -> str:
    document = json.dumps([asdict(behavior), [asdict(call) for call in calls]], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


# -- arrivals: each returns (at_s, ends_s) in order ------------------------------------------------------------------

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
    begin, end, times = SPIKE
    return _thinned(scenario, draw, lambda share: times if begin <= share < end else 1.0, times)


def _trace(scenario: Scenario, draw: np.random.Generator) -> _Times:
    """A CSV file: seconds after the start, and optionally the call's length, on each line."""
    try:
        with Path(scenario.trace).open(newline="", encoding="utf-8") as file:
            rows = [[float(cell) for cell in row[:2]] for row in csv.reader(file) if row]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{scenario.trace!r} is no trace ({error}).", "Write SECONDS,LENGTH lines.", "--set trace"
        ) from None
    times = [(row[0], row[0] + (row[1] if len(row) > 1 else _length_s(scenario, draw))) for row in rows]
    if any(not 0 <= at < ends < math.inf for at, ends in times):
        raise ConfigError("a call of the trace ends before it begins.", "Write SECONDS,LENGTH lines.", "--set trace")
    return sorted((at, ends) for at, ends in times if at < _end_s(scenario))


def _renewal(scenario: Scenario, draw: np.random.Generator, gap: Callable[[], float]) -> _Times:
    times: _Times = []
    at = gap()
    while at < _end_s(scenario) and len(times) <= MAX_SESSIONS:
        times.append((at, at + _length_s(scenario, draw)))
        at += gap()
    return times


def _thinned(scenario: Scenario, draw: np.random.Generator, shape: Callable[[float], float], most: float) -> _Times:
    """A Poisson stream whose rate is `shape(share of the run)` times the base rate (Lewis and Shedler's thinning)."""
    end, rate = _end_s(scenario), _rate(scenario)
    times: _Times = []
    at = 0.0
    while len(times) <= MAX_SESSIONS:
        at += float(draw.exponential(1 / (rate * most)))
        if at >= end:
            break
        if draw.random() * most < shape(at / end):
            times.append((at, at + _length_s(scenario, draw)))
    return times


def _end_s(scenario: Scenario) -> float:
    return _lead_s(scenario) + scenario.for_s


def _length_s(scenario: Scenario, draw: np.random.Generator) -> float:
    return float(draw.exponential(_mean_s(scenario)))


def _mean_s(scenario: Scenario) -> float:
    return scenario.session_s or 60.0


def _rate(scenario: Scenario) -> float:
    """Calls a second: as asked, or what keeps `sessions` open on average (Little's law)."""
    return scenario.rate_per_s or scenario.sessions / _mean_s(scenario)


_ARRIVALS: dict[Arrivals, Callable[[Scenario, np.random.Generator], _Times]] = {
    Arrivals.RAMP: _ramp,
    Arrivals.POISSON: _poisson,
    Arrivals.BURSTS: _bursts,
    Arrivals.DIURNAL: _diurnal,
    Arrivals.SPIKE: _spike,
    Arrivals.TRACE: _trace,
}
