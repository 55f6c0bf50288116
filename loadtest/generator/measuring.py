"""A load run with the replicas' metrics, which are read at the start and the end of the measured time.

Calibration and validation of the capacity model use this module.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from loadtest.generator.run import run
from loadtest.generator.stage_metrics import Reading, StageCounts, difference, read
from loadtest.generator.workers import ProgressCallback, RunProgress
from loadtest.results.result import RunResult
from loadtest.scenario import schedule
from loadtest.scenario.scenario import Scenario
from rejoinder.core.errors import BackendError


@dataclass(frozen=True, slots=True)
class MeasuredWindow:
    """Difference between two readings of the replicas' metrics, at the start and the end of a run's measured time.

    Attributes:
        for_s: Time between the two readings in seconds.
        stages: Counts of each stage between the readings, by stage.
        changed: Names of the replicas that started or ended between the readings. They are not in `stages`.
        bytes_sent: Payload bytes that the callers sent between the readings.
        bytes_received: Payload bytes that the callers received between the readings.
        frames_sent: Number of audio frames that the callers sent between the readings.
    """

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
    """Reader of the replicas' metrics at the start and at the end of the measured time of a run.

    Pass the watcher to `run` as its progress callback, and call `window` after the run.
    """

    def __init__(self, url: str, from_s: float, to_s: float, reader: Callable[[str], Reading] = read) -> None:
        """Create a watcher.

        Args:
            url: HTTP address of the server.
            from_s: Start of the measured time in seconds after the start of the run.
            to_s: End of the measured time in seconds after the start of the run.
            reader: Function that reads the metrics of all replicas from the HTTP address.
        """
        self._url = url
        self._from_s = from_s
        self._to_s = to_s
        self._reader = reader
        self._first: _Reading | None = None
        self._last: _Reading | None = None

    def __call__(self, progress: RunProgress) -> None:
        """Read the metrics when this is the first call after the start, or after the end, of the measured time."""
        elapsed = progress.elapsed_s
        if self._first is None and elapsed >= self._from_s:
            self._first = self._read(progress)
        elif self._first is not None and self._last is None and elapsed >= self._to_s:
            self._last = self._read(progress)

    def _read(self, progress: RunProgress) -> _Reading:
        traffic: Counter[str] = sum(progress.traffic.values(), Counter())
        return _Reading(time.monotonic(), self._reader(self._url), traffic)

    def window(self) -> MeasuredWindow:
        """Return the difference of the two readings. Call this method after the run.

        Raises:
            BackendError: The run ended before the end of its measured time.
        """
        if self._first is None or self._last is None:
            raise BackendError(
                "the run ended before the end of its measured time.", "See the generator's output for the cause."
            )
        stages, changed = difference(self._first.replicas, self._last.replicas)
        return MeasuredWindow(
            for_s=self._last.at - self._first.at,
            stages=stages,
            changed=tuple(changed),
            bytes_sent=self._last.traffic["bytes_sent"] - self._first.traffic["bytes_sent"],
            bytes_received=self._last.traffic["bytes_received"] - self._first.traffic["bytes_received"],
            frames_sent=self._last.traffic["sent"] - self._first.traffic["sent"],
        )


def measure(scenario: Scenario, watch: ProgressCallback = lambda _: None) -> tuple[RunResult, MeasuredWindow]:
    """Run a scenario. Return (result of the run, the replicas' metrics in its measured time).

    Args:
        scenario: What to run.
        watch: Called with the progress after each report of a worker.

    Raises:
        ConfigError: The server is on another machine although the scenario does not set `owned`, or the scenario has
            no valid schedule.
        BackendError: The server does not answer, a worker ended early, or the run ended before the end of its measured
            time.
    """
    frozen = schedule.plan(scenario)
    watcher = WindowWatcher(
        http_root(scenario.url), frozen.measure_from_s, frozen.measure_to_s, lambda url: read(url, scenario.api_key)
    )

    def both(progress: RunProgress) -> None:
        watcher(progress)
        watch(progress)

    result = run(scenario, both)
    return result, watcher.window()


def idle(url: str, for_s: float) -> MeasuredWindow:
    """Wait without sending load, and return the replicas' metrics in this time.

    Args:
        url: OpenAI base URL of the server (ws:// or wss://).
        for_s: Length of the wait in seconds.
    """
    before, started_at = read(http_root(url)), time.monotonic()
    time.sleep(for_s)
    stages, changed = difference(before, read(http_root(url)))
    return MeasuredWindow(
        time.monotonic() - started_at, stages, tuple(changed), bytes_sent=0, bytes_received=0, frames_sent=0
    )


def http_root(url: str) -> str:
    """Return the HTTP address of a server (http:// or https://, without /v1) from its OpenAI base URL."""
    return url.rstrip("/").removesuffix("/v1").replace("ws", "http", 1)
