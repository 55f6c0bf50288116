"""Tests of the window watcher, which reads the replicas' metrics at the start and the end of a run's measured time."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from loadtest.generator.measuring import WindowWatcher, http_root
from loadtest.generator.stage_metrics import ReplicaCounts
from loadtest.generator.workers import RunProgress
from rejoinder.core.errors import BackendError
from rejoinder.core.measuring.histogram import Histogram


class Replicas:
    """Fake replicas that have served one more request of 1 s at each reading."""

    def __init__(self) -> None:
        self.readings = 0

    def read(self, url: str) -> dict[str, ReplicaCounts]:
        assert url == "http://here"
        self.readings += 1
        served = Histogram((1.0, float("inf")), (self.readings, 0), float(self.readings))
        return {"a": ReplicaCounts("stt", service=served, ends={"done": float(self.readings)})}


def progress(elapsed_s: float, sent: int) -> RunProgress:
    state = RunProgress(10, time.time() - elapsed_s)
    state.traffic[0] = Counter(sent=sent, bytes_sent=10 * sent, bytes_received=20 * sent)
    return state


def test_the_window_is_the_measured_time() -> None:
    """The replicas' metrics are read twice: at the start and at the end of the measured time.

    The window has the requests, frames and bytes between the two readings.
    """
    replicas = Replicas()
    watcher = WindowWatcher("http://here", 5, 8, replicas.read)
    for elapsed_s, sent in ((1, 10), (5, 50), (6, 60), (7, 70), (8, 80), (9, 90)):
        watcher(progress(elapsed_s, sent))
    window = watcher.window()
    assert replicas.readings == 2
    assert (window.frames_sent, window.bytes_sent, window.bytes_received) == (30, 300, 600)
    assert window.stages["stt"].service.count == 1
    assert window.changed == ()


def test_a_run_that_ends_early_has_no_window() -> None:
    """If the run ended before the end of its measured time, `window` raises BackendError."""
    watcher = WindowWatcher("http://here", 5, 8, Replicas().read)
    watcher(progress(6, 10))
    with pytest.raises(BackendError, match="ended before"):
        watcher.window()


@pytest.mark.parametrize("url", ["ws://h:1/v1", "ws://h:1/v1/", "ws://h:1"])
def test_the_http_address_of_a_websocket_url(url: str) -> None:
    """The server's HTTP address is its WebSocket URL with http instead of ws and without /v1."""
    assert http_root(url) == "http://h:1"
