"""Predictions held against measurements: configurations that were not calibrated on, each bounded by emulated slots.

A row is predicted first, and the prediction is written down; then it is measured in repeats, at loads around the
predicted knee. The measured knee is where the repeats' mean 95th percentiles, joined by straight lines, cross the
limit: a saturated closed system's waits grow linearly with its callers. What the repeats differ by is the machine's
noise floor: an error below it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any

from loadtest.capacity.calibration import Calibration
from loadtest.capacity.emulated_network import answer, stage
from loadtest.capacity.network_fit import STAGES, fit, varied
from loadtest.capacity.prediction import knee, predict
from loadtest.capacity.queueing import QueueStage
from loadtest.capacity.turn_network import TurnNetwork
from rejoinder.core.capacity.erlang import blocking
from rejoinder.core.settings.settings import Settings, parse_settings

LIMIT_MS = 2500.0
"""Of the 95th percentile: where waiting, not the tail of one service, decides; the guide's tiers do not matter here."""

KNEE_WITHIN = 0.10
P95_WITHIN = 0.25

LOADS = (0.9, 1.1)
"""Of the predicted knee, where a row is measured."""

PREDICT_FOR_S = 400.0


@dataclass(frozen=True, slots=True)
class CapacityRow:
    """A configuration as changes of the base's `args`, and in words."""

    name: str
    what: str
    changes: Mapping[str, Mapping[str, Any]]


def _stage(replicas: int, slots: int, **curve: float) -> dict[str, Any]:
    return {
        "engine": "emulated",
        "autoscaling": {"min_replicas": replicas, "max_replicas": replicas},
        "emulation": {"slots": slots, "curve": curve},
    }


def _stt(replicas: int, slots: int, **curve: float) -> dict[str, Any]:
    """Words end turns, so that the turn model's share of this machine's cores is none."""
    stage = _stage(replicas, slots, **curve)
    stage["emulation"] |= {"full_stop": True}
    return stage


def _llm(replicas: int, slots: int, **curve: float) -> dict[str, Any]:
    stage = _stage(replicas, slots, **curve)
    stage["emulation"] |= {"tokens": 4, "tokens_per_s": 100}
    return stage


BASE: dict[str, Any] = {
    "stt": _stt(1, 3, median_ms=500, sigma=0.2),
    "llm": _llm(2, 4, median_ms=350, sigma=0.2),
    "tts": _stage(1, 6, median_ms=120),
    "hedging": {"min_samples": 50},
    # The network of queues that is held against the measurement begins replies when turns are taken.
    "speculation": {"enabled": False},
}
"""What is calibrated: one replica of speech to text is the bottleneck."""

ROWS: tuple[CapacityRow, ...] = (
    CapacityRow("replicas", "stt on 2 replicas of 2 slots", {"stt": _stt(2, 2, median_ms=500, sigma=0.2)}),
    CapacityRow("slots", "stt on 1 replica of 2 slots", {"stt": _stt(1, 2, median_ms=500, sigma=0.2)}),
    CapacityRow("fixed", "stt fixed at 350 ms, 2 slots", {"stt": _stt(1, 2, median_ms=350)}),
    CapacityRow("wide", "stt log-normal 250 ms, sigma 0.8, 2 slots", {"stt": _stt(1, 2, median_ms=250, sigma=0.8)}),
    CapacityRow(
        "growing",
        "stt 300 ms + 100 ms a neighbour, 3 slots",
        {"stt": _stt(1, 3, median_ms=300, per_concurrent_ms=100)},
    ),
    CapacityRow("llm", "llm on 1 replica of 2 slots, sigma 0.5", {"llm": _llm(1, 2, median_ms=350, sigma=0.5)}),
    CapacityRow(
        "hedged",
        "llm on 3 replicas of 1 slot, sigma 0.5, hedged; stt wide open",
        {"stt": _stt(1, 8, median_ms=300), "llm": _llm(3, 1, median_ms=400, sigma=0.5)},
    ),
    CapacityRow("tts", "tts on 1 replica of 1 slot, 150 ms", {"tts": _stage(1, 1, median_ms=150)}),
    CapacityRow("thirds", "stt on 3 replicas of 1 slot, sigma 0.5", {"stt": _stt(3, 1, median_ms=400, sigma=0.5)}),
)


def row(name: str) -> CapacityRow:
    """Raises KeyError for a name that there is not."""
    return {row.name: row for row in ROWS}[name]


def settings_of(base: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The base's settings with whole stages replaced, and without what answers late turns in another way: a filler
    delays the answer behind it, and a policy changes the system between two turns. Neither is in the network of queues.
    """
    conversation = {**base.get("conversation", {}), "filler_after_ms": 0}
    return parse_settings({**base, **changes, "conversation": conversation, "degradation": {"enabled": False}})


@dataclass(frozen=True, slots=True)
class Predicted:
    """Written before the row is measured. `p95_ms` at each of `sessions`; `knee` the most within the limit."""

    row: str
    what: str
    limit_ms: float
    knee: int
    sessions: tuple[int, ...]
    p50_ms: tuple[float, ...]
    p95_ms: tuple[float, ...]
    turns_per_s: tuple[float, ...]
    bottleneck: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """One measurement of all of a row's loads. `invalid`: the generator's causes, if it was not fit to measure."""

    p50_ms: tuple[float, ...]
    p95_ms: tuple[float, ...]
    turns: tuple[int, ...]
    seconds: float
    invalid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """A predicted row and its repeats."""

    predicted: Predicted
    repeats: tuple[Repeat, ...] = field(default=())

    @property
    def knee(self) -> float:
        """Where the repeats' mean 95th percentiles cross the limit."""
        return crossing(self.predicted.sessions, self._p95_ms(), self.predicted.limit_ms)

    @property
    def knees(self) -> tuple[float, ...]:
        """Each repeat's own: the line of all repeats, moved by what this one's percentiles differ on average.

        Two percentiles of one short run give no slope worth the name.
        """
        sessions, mean = self.predicted.sessions, self._p95_ms()
        _, slope = _segment(sessions, mean, self.predicted.limit_ms)
        off = [fmean(p95 - usual for p95, usual in zip(repeat.p95_ms, mean, strict=True)) for repeat in self.repeats]
        return tuple(self.knee - by / slope for by in off)

    @property
    def knee_error(self) -> float:
        """Relative; positive if more was predicted than measured."""
        # A knee is a whole number of sessions: the prediction lies anywhere up to the next one.
        return (self.predicted.knee + 0.5) / self.knee - 1

    @property
    def p95_errors(self) -> tuple[float, ...]:
        """At each load, against the mean of the repeats."""
        return tuple(guess / truth - 1 for guess, truth in zip(self.predicted.p95_ms, self._p95_ms(), strict=True))

    @property
    def p95_error(self) -> float:
        """The largest of all loads, whatever its sign."""
        return float(max(self.p95_errors, key=abs))

    def _p95_ms(self) -> list[float]:
        return [fmean(values) for values in zip(*(repeat.p95_ms for repeat in self.repeats), strict=True)]

    @property
    def knee_noise(self) -> float:
        """Half the range of the repeats, relative to their mean."""
        return (max(self.knees) - min(self.knees)) / 2 / self.knee

    @property
    def p95_noise(self) -> float:
        """Of the load at which the repeats differ most."""
        columns: list[tuple[float, ...]] = list(zip(*(repeat.p95_ms for repeat in self.repeats), strict=True))
        return max((max(values) - min(values)) / 2 / fmean(values) for values in columns)

    @property
    def holds(self) -> bool:
        return abs(self.knee_error) <= KNEE_WITHIN and abs(self.p95_error) <= P95_WITHIN


def network(calibration: Calibration, changed: CapacityRow, words: Sequence[str]) -> TurnNetwork:
    """The calibrated network with the row's stages in place of its own."""
    settings = settings_of(calibration.settings, changed.changes)
    fitted = fit(calibration, answer(parse_settings(calibration.settings), words))
    stages: dict[str, QueueStage] = {name: stage(settings, name) for name in STAGES if name in changed.changes}
    return varied(fitted, stages)


def predict_row(net: TurnNetwork, changed: CapacityRow, limit_ms: float = LIMIT_MS) -> Predicted:
    """The knee, and the percentiles at the loads around it at which the row is to be measured."""
    found = knee(lambda sessions: predict(net, sessions, PREDICT_FOR_S).p95_ms.value, limit_ms, most=500)
    loads = tuple(max(1, round(share * found)) for share in LOADS)
    guesses = [predict(net, sessions, PREDICT_FOR_S) for sessions in loads]
    return Predicted(
        row=changed.name,
        what=changed.what,
        limit_ms=limit_ms,
        knee=found,
        sessions=loads,
        p50_ms=tuple(round(guess.p50_ms.value, 1) for guess in guesses),
        p95_ms=tuple(round(guess.p95_ms.value, 1) for guess in guesses),
        turns_per_s=tuple(round(guess.turns_per_s.value, 3) for guess in guesses),
        bottleneck=guesses[-1].bottleneck,
    )


def crossing(sessions: Sequence[int], p95_ms: Sequence[float], limit_ms: float) -> float:
    """Where the measured percentiles, joined by straight lines, cross the limit; beyond them the last line goes on.

    Noise may let a percentile fall with load: then the line rises where it last does so. Raises ValueError if it never
    does.
    """
    (n, low), slope = _segment(sessions, p95_ms, limit_ms)
    return n + (limit_ms - low) / slope


def _segment(sessions: Sequence[int], p95_ms: Sequence[float], limit_ms: float) -> tuple[tuple[int, float], float]:
    """The start of the line on which the limit lies, and its slope a session."""
    pairs = list(pairwise(zip(sessions, p95_ms, strict=True)))
    rising = [pair for pair in pairs if pair[1][1] > pair[0][1]]
    if not rising:
        raise ValueError(f"p95 does not rise from {sessions[0]} to {sessions[-1]} sessions: no knee can be read off")
    inside = [pair for pair in rising if pair[0][1] <= limit_ms < pair[1][1]]
    start, end = inside[-1] if inside else (rising[0] if limit_ms < p95_ms[0] else rising[-1])
    return start, (end[1] - start[1]) / (end[0] - start[0])


@dataclass(frozen=True, slots=True)
class AdmissionRow:
    """Calls at random that say nothing, against a host that admits `max_sessions`: Erlang B."""

    calls_per_s: float
    session_s: float
    max_sessions: int

    @property
    def refused(self) -> float:
        """The predicted share."""
        return blocking(self.calls_per_s * self.session_s, self.max_sessions)


ADMISSION = AdmissionRow(calls_per_s=4.0, session_s=5.0, max_sessions=20)
ADMISSION_ROW = "admission"
REFUSED_WITHIN = 0.25


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """The predicted share of refused calls, and the measured one of each repeat, of so many calls."""

    predicted: float
    refused: tuple[float, ...] = ()
    calls: tuple[int, ...] = ()

    @property
    def measured(self) -> float:
        """Of all repeats' calls together."""
        return sum(share * count for share, count in zip(self.refused, self.calls, strict=True)) / sum(self.calls)

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    @property
    def noise(self) -> float:
        return (max(self.refused) - min(self.refused)) / 2 / self.measured

    @property
    def holds(self) -> bool:
        return abs(self.error) <= REFUSED_WITHIN
