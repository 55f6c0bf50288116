"""One run with the replicas read at both ends of its measured time: what calibration and validation are made of."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from loadtest.generator.run import run
from loadtest.generator.stage_metrics import Reading, StageCounts, between, read
from loadtest.generator.workers import RunProgress, Watch
from loadtest.results.result import RunResult
from loadtest.scenario import schedule
from loadtest.scenario.scenario import Scenario
from rejoinder.core.errors import BackendError


@dataclass(frozen=True, slots=True)
class MeasuredWindow:
    """What happened between two readings of the replicas, `for_s` apart, close to the run's measured time."""

    for_s: float
    stages: dict[str, StageCounts]
    changed: tuple[str, ...]
    bytes_sent: int
    bytes_received: int
    frames_sent: int


@dataclass(frozen=True, slots=True)
class _Reading:
    at: float
    replicas: Reading
    traffic: Counter[str]


class WindowWatcher:
    """Watches a run and reads the replicas once it measures, and once it does not any more."""

    def __init__(self, url: str, from_s: float, to_s: float, reader: Callable[[str], Reading] = read) -> None:
        self._url = url
        self._from_s = from_s
        self._to_s = to_s
        self._reader = reader
        self._first: _Reading | None = None
        self._last: _Reading | None = None

    def __call__(self, progress: RunProgress) -> None:
        elapsed = progress.elapsed_s
        if self._first is None and elapsed >= self._from_s:
            self._first = self._read(progress)
        elif self._first is not None and self._last is None and elapsed >= self._to_s:
            self._last = self._read(progress)

    def _read(self, progress: RunProgress) -> _Reading:
        traffic: Counter[str] = sum(progress.traffic.values(), Counter())
        return _Reading(time.monotonic(), self._reader(self._url), traffic)

    def window(self) -> MeasuredWindow:
        """After the run; raises BackendError if it ended before its time."""
        if self._first is None or self._last is None:
            raise BackendError("the run ended before its measured time did.", "See the generator's causes.")
        stages, changed = between(self._first.replicas, self._last.replicas)
        return MeasuredWindow(
            for_s=self._last.at - self._first.at,
            stages=stages,
            changed=tuple(changed),
            bytes_sent=self._last.traffic["bytes_sent"] - self._first.traffic["bytes_sent"],
            bytes_received=self._last.traffic["bytes_received"] - self._first.traffic["bytes_received"],
            frames_sent=self._last.traffic["sent"] - self._first.traffic["sent"],
        )


def measure(scenario: Scenario, watch: Watch = lambda _: None) -> tuple[RunResult, MeasuredWindow]:
    """Hold the scenario and read the replicas beside it."""
    frozen = schedule.plan(scenario)
    windower = WindowWatcher(http_root(scenario.url), frozen.measure_from_s, frozen.measure_to_s)

    def both(progress: RunProgress) -> None:
        windower(progress)
        watch(progress)

    result = run(scenario, both)
    return result, windower.window()


def idle(url: str, for_s: float) -> MeasuredWindow:
    """The replicas of the server at `url` (ws) without any load of ours, read twice."""
    before, began = read(http_root(url)), time.monotonic()
    time.sleep(for_s)
    stages, changed = between(before, read(http_root(url)))
    return MeasuredWindow(
        time.monotonic() - began, stages, tuple(changed), bytes_sent=0, bytes_received=0, frames_sent=0
    )


def http_root(url: str) -> str:
    """The server's HTTP address, from that of its WebSockets."""
    return url.rstrip("/").removesuffix("/v1").replace("ws", "http", 1)
