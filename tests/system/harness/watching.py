"""Waiting in tests: for any condition, and for requests in flight according to the metrics of replicas."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import httpx2
import psutil

POLL_S = 0.02
_IN_FLIGHT = re.compile(rb"^rejoinder_requests_in_flight\{[^}]*\} ([0-9.]+)$", re.MULTILINE)


def wait_until(holds: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait until `holds` returns True, and return the seconds that passed.

    Raise TimeoutError, with `what` as the name of the condition, after `timeout_s` seconds.
    """
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(POLL_S)
    return time.monotonic() - began


class Gauges:
    """Reader of the number of requests in flight at some replicas. A reading takes a few milliseconds.

    The replicas are given as in `Served.replicas`. Connections stay open until the block ends.
    """

    def __init__(self, replicas: list[dict[str, str]]) -> None:
        self._replicas = replicas
        self._client = httpx2.Client(timeout=5)

    def __enter__(self) -> Gauges:
        return self

    def __exit__(self, *fault: object) -> None:
        self._client.close()

    def in_flight(self, stage: str = "") -> float:
        """Return the number of requests in flight at all replicas, or at those of one stage."""
        return sum(self._read(replica) for replica in self._replicas if stage in ("", replica["stage"]))

    def wait_for(self, count: float, timeout_s: float, stage: str = "") -> float:
        """Wait until `count` requests are in flight at `stage`, by default at all stages. Return the seconds waited.

        Raise TimeoutError after `timeout_s` seconds.
        """
        return wait_until(lambda: self.in_flight(stage) == count, timeout_s, f"{count:g} in flight {stage}")

    def wait_for_work(self, stage: str, timeout_s: float) -> None:
        """Wait until the stage has a request in flight. Raise TimeoutError after `timeout_s` seconds."""
        wait_until(lambda: self.in_flight(stage) >= 1, timeout_s, f"work for {stage}")

    def _read(self, replica: dict[str, str]) -> float:
        found = _IN_FLIGHT.search(self._client.get(f"http://{replica['target']}/metrics").content)
        return float(found[1]) if found else 0.0


def cpu_share(pid: str, window_s: float = 0.5) -> float:
    """Wait `window_s` seconds and return how many cores the process used on average, 1.0 for one full core."""
    return psutil.Process(int(pid)).cpu_percent(window_s) / 100
