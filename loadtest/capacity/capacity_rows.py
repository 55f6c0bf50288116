"""Validation of the capacity model (`rejoinder bench capacity`): predictions compared with later measurements.

Each row is a configuration that was not calibrated. The slots of its emulated engines limit it, not the machine. First,
the prediction of a row is written to a file. Then the row is measured several times, at loads around the predicted
knee.

The 95th percentiles are averaged over the repeats and joined by straight lines. The measured knee is where these lines
cross the limit. Straight lines fit because waits in a saturated closed system grow linearly with the number of callers.
The spread of the repeats is the machine's noise, and an error below this noise is not significant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from typing import Any

from loadtest.capacity.calibration import Calibration
from loadtest.capacity.emulated_network import emulated_reply, emulated_stage
from loadtest.capacity.network_fit import STAGES, fit, with_calibrated_hops
from loadtest.capacity.prediction import knee, predict
from loadtest.capacity.queueing import QueueStage
from loadtest.capacity.turn_network import TurnNetwork
from rejoinder.core.capacity.erlang import blocking
from rejoinder.core.settings.settings import Settings, parse_settings

LIMIT_MS = 2500.0
"""Limit of the 95th percentile of voice-to-voice latency in milliseconds. It is so high that it is exceeded by waiting
for slots and not by single slow services. It is not a tier of the latency guide."""

KNEE_WITHIN = 0.10
"""Maximum accepted relative error of a predicted knee."""
P95_WITHIN = 0.25
"""Maximum accepted relative error of a predicted 95th percentile."""

LOADS = (0.9, 1.1)
"""Loads at which a row is measured, as shares of the predicted knee."""

PREDICT_FOR_S = 400.0


@dataclass(frozen=True, slots=True)
class CapacityRow:
    """A configuration to predict and measure.

    Attributes:
        name: Name of the row, part of file names.
        what: The configuration in words.
        changes: New settings of the stages that differ from `BASE`, by stage.
    """

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
    """Return settings of an emulated speech-to-text stage whose transcripts end with a full stop.

    The full stop ends a turn without the turn detector, so the detector uses no CPU of this machine.

    Args:
        replicas: Number of replicas.
        slots: Number of requests that one replica serves at the same time.
        curve: Settings of the emulated service times, such as `median_ms` and `sigma`.
    """
    emulated_stage = _stage(replicas, slots, **curve)
    emulated_stage["emulation"] |= {"full_stop": True}
    return emulated_stage


def _llm(replicas: int, slots: int, **curve: float) -> dict[str, Any]:
    emulated_stage = _stage(replicas, slots, **curve)
    emulated_stage["emulation"] |= {"tokens": 4, "tokens_per_s": 100}
    return emulated_stage


BASE: dict[str, Any] = {
    "stt": _stt(1, 3, median_ms=500, sigma=0.2),
    "llm": _llm(2, 4, median_ms=350, sigma=0.2),
    "tts": _stage(1, 6, median_ms=120),
    "hedging": {"min_samples": 50},
    # Speculative replies are off, because the simulated network starts every reply at the end of turn.
    "speculation": {"enabled": False},
}
"""Settings of the calibrated configuration. Its single replica of speech to text is the bottleneck."""

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
    """Return the element of `ROWS` with this name. Raise KeyError if the name is unknown."""
    return {row.name: row for row in ROWS}[name]


def settings_of(base: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Return the settings `base` with the stages in `changes` replaced.

    Fillers, degradation and admission by the stages are turned off, because the simulated network has none of them. A
    filler delays the answer after it, degradation changes the system from one turn to the next, and admission refuses
    calls before the system saturates.
    """
    conversation = {**base.get("conversation", {}), "filler_after_ms": 0}
    off = {"enabled": False}
    return parse_settings({**base, **changes, "conversation": conversation, "degradation": off, "admission": off})


@dataclass(frozen=True, slots=True)
class Predicted:
    """Prediction of a row (one configuration), written to a file before the row is measured.

    Attributes:
        row: Name of the row.
        what: The configuration in words.
        limit_ms: Limit of the 95th percentile of voice-to-voice latency in milliseconds.
        knee: Maximum number of sessions with which the limit is predicted to be met.
        sessions: Numbers of sessions (loads) at which to measure the row.
        p50_ms: Predicted median at each load, in milliseconds.
        p95_ms: Predicted 95th percentile at each load, in milliseconds.
        turns_per_s: Predicted throughput at each load, in turns per second.
        bottleneck: Stage with the largest share of slots in use at the highest load.
    """

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
    """One measurement of a row (one configuration) at all its loads.

    Attributes:
        p50_ms: Measured median at each load, in milliseconds.
        p95_ms: Measured 95th percentile at each load, in milliseconds.
        turns: Number of measured turns at each load.
        seconds: Measured time at each load, in seconds.
        invalid: Failed self-checks of the load generator, in words. Empty if all passed.
    """

    p50_ms: tuple[float, ...]
    p95_ms: tuple[float, ...]
    turns: tuple[int, ...]
    seconds: float
    invalid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """Prediction of a row (one configuration), and one `Repeat` for each time that it was measured at all its loads."""

    predicted: Predicted
    repeats: tuple[Repeat, ...] = field(default=())

    @property
    def knee(self) -> float:
        """Measured knee in sessions: where the 95th percentiles, averaged over the repeats, cross the limit."""
        return crossing(self.predicted.sessions, self._p95_ms(), self.predicted.limit_ms)

    @property
    def knees(self) -> tuple[float, ...]:
        """Knee of each repeat, in sessions.

        A repeat has too few turns for a line of its own. Its knee is where the line through the averages of all repeats
        crosses the limit, after the line is shifted by this repeat's mean difference from the averages.
        """
        sessions, mean = self.predicted.sessions, self._p95_ms()
        _, slope = _segment(sessions, mean, self.predicted.limit_ms)
        shifts = [
            fmean(p95 - common for p95, common in zip(repeat.p95_ms, mean, strict=True)) for repeat in self.repeats
        ]
        return tuple(self.knee - shift / slope for shift in shifts)

    @property
    def knee_error(self) -> float:
        """Relative error of the predicted knee: predicted / measured - 1."""
        # The predicted knee is a whole number: the limit is crossed between this number and the next. Take the middle.
        return (self.predicted.knee + 0.5) / self.knee - 1

    @property
    def p95_errors(self) -> tuple[float, ...]:
        """Relative error of the predicted 95th percentile at each load, against the mean of the repeats."""
        pairs = zip(self.predicted.p95_ms, self._p95_ms(), strict=True)
        return tuple(predicted / measured - 1 for predicted, measured in pairs)

    @property
    def p95_error(self) -> float:
        """The element of `p95_errors` with the largest absolute value, with its sign."""
        return float(max(self.p95_errors, key=abs))

    def _p95_ms(self) -> list[float]:
        return [fmean(values) for values in zip(*(repeat.p95_ms for repeat in self.repeats), strict=True)]

    @property
    def knee_noise(self) -> float:
        """Noise of the measured knee: half the range of the repeats' knees, as a share of the measured knee."""
        return (max(self.knees) - min(self.knees)) / 2 / self.knee

    @property
    def p95_noise(self) -> float:
        """Largest noise of the 95th percentile over the loads.

        The noise at a load is half the range of the repeats' values, relative to their mean.
        """
        columns: list[tuple[float, ...]] = list(zip(*(repeat.p95_ms for repeat in self.repeats), strict=True))
        return max((max(values) - min(values)) / 2 / fmean(values) for values in columns)

    @property
    def holds(self) -> bool:
        """True if the errors of the knee and of every 95th percentile are within `KNEE_WITHIN` and `P95_WITHIN`."""
        return abs(self.knee_error) <= KNEE_WITHIN and abs(self.p95_error) <= P95_WITHIN


def network(calibration: Calibration, changed: CapacityRow, words: Sequence[str]) -> TurnNetwork:
    """Return the queueing network of a row, that is, of a configuration in which some stages are changed.

    It is the calibrated network with these stages replaced. The models of the replaced stages come from the settings of
    their emulated engines.

    Args:
        calibration: Calibration of the configuration `BASE`.
        changed: The row.
        words: Words of which the emulated language model makes its replies.
    """
    settings = settings_of(calibration.settings, changed.changes)
    fitted = fit(calibration, emulated_reply(parse_settings(calibration.settings), words))
    stages: dict[str, QueueStage] = {name: emulated_stage(settings, name) for name in STAGES if name in changed.changes}
    return with_calibrated_hops(fitted, stages)


def predict_row(net: TurnNetwork, changed: CapacityRow, limit_ms: float = LIMIT_MS) -> Predicted:
    """Predict the knee of a row, and its latency percentiles at the loads at which it is to be measured.

    Args:
        net: Queueing network of the row, from the function `network`.
        changed: The row: a configuration that was not calibrated.
        limit_ms: Limit of the 95th percentile of voice-to-voice latency in milliseconds.
    """
    sessions = knee(lambda sessions: predict(net, sessions, PREDICT_FOR_S).p95_ms.value, limit_ms, most=500)
    loads = tuple(max(1, round(share * sessions)) for share in LOADS)
    predictions = [predict(net, load, PREDICT_FOR_S) for load in loads]
    return Predicted(
        row=changed.name,
        what=changed.what,
        limit_ms=limit_ms,
        knee=sessions,
        sessions=loads,
        p50_ms=tuple(round(prediction.p50_ms.value, 1) for prediction in predictions),
        p95_ms=tuple(round(prediction.p95_ms.value, 1) for prediction in predictions),
        turns_per_s=tuple(round(prediction.turns_per_s.value, 3) for prediction in predictions),
        bottleneck=predictions[-1].bottleneck,
    )


def crossing(sessions: Sequence[int], p95_ms: Sequence[float], limit_ms: float) -> float:
    """Return the number of sessions at which the measured percentiles, joined by straight lines, cross the limit.

    If no line crosses the limit, the nearest rising line is extended. Lines that fall with load, because of noise, are
    ignored.

    Args:
        sessions: Measured numbers of sessions, rising.
        p95_ms: 95th percentile of voice-to-voice latency at each of them, in milliseconds.
        limit_ms: The limit in milliseconds.

    Raises:
        ValueError: No line rises, so there is no knee.
    """
    (n, low), slope = _segment(sessions, p95_ms, limit_ms)
    return n + (limit_ms - low) / slope


def _segment(sessions: Sequence[int], p95_ms: Sequence[float], limit_ms: float) -> tuple[tuple[int, float], float]:
    """Return the line that crosses the limit, or else the nearest rising line.

    Its form is ((sessions, ms) at the start of the line, slope in ms per session).
    """
    pairs = list(pairwise(zip(sessions, p95_ms, strict=True)))
    rising = [pair for pair in pairs if pair[1][1] > pair[0][1]]
    if not rising:
        raise ValueError(f"p95 does not rise from {sessions[0]} to {sessions[-1]} sessions: there is no knee")
    inside = [pair for pair in rising if pair[0][1] <= limit_ms < pair[1][1]]
    start, end = inside[-1] if inside else (rising[0] if limit_ms < p95_ms[0] else rising[-1])
    return start, (end[1] - start[1]) / (end[0] - start[0])


@dataclass(frozen=True, slots=True)
class AdmissionRow:
    """Validation of the predicted share of refused calls (Erlang B).

    Calls without speech arrive at random at a host with a limited number of sessions.

    Attributes:
        calls_per_s: Mean number of calls that arrive per second.
        session_s: Mean length of a call in seconds.
        max_sessions: Maximum number of sessions that the host admits.
    """

    calls_per_s: float
    session_s: float
    max_sessions: int

    @property
    def refused(self) -> float:
        """Predicted share of refused calls, 0 to 1."""
        return blocking(self.calls_per_s * self.session_s, self.max_sessions)


ADMISSION = AdmissionRow(calls_per_s=4.0, session_s=5.0, max_sessions=20)
ADMISSION_ROW = "admission"
REFUSED_WITHIN = 0.25


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """Predicted and measured share of refused calls. Shares are from 0 to 1.

    Attributes:
        predicted: Predicted share of refused calls.
        refused: Measured share of refused calls in each repeat.
        calls: Number of calls in each repeat.
    """

    predicted: float
    refused: tuple[float, ...] = ()
    calls: tuple[int, ...] = ()

    @property
    def measured(self) -> float:
        """Measured share of refused calls, over the calls of all repeats together."""
        return sum(share * count for share, count in zip(self.refused, self.calls, strict=True)) / sum(self.calls)

    @property
    def error(self) -> float:
        """Relative error of the predicted share: predicted / measured - 1."""
        return self.predicted / self.measured - 1

    @property
    def noise(self) -> float:
        """Noise of the measured share of refused calls: half the range over the repeats, divided by the share."""
        return (max(self.refused) - min(self.refused)) / 2 / self.measured

    @property
    def holds(self) -> bool:
        """True if the prediction is accurate: the size of the relative error is within `REFUSED_WITHIN`."""
        return abs(self.error) <= REFUSED_WITHIN
