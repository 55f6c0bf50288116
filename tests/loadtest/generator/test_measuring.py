"""Reading the replicas at both ends of a run's measured time."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from loadtest.generator.measuring import WindowWatcher, http_root
from loadtest.generator.stage_metrics import Histogram, ReplicaCounts
from loadtest.generator.workers import RunProgress
from rejoinder.core.errors import BackendError


class Replicas:
    """Counts one request of a second at each reading."""

    def __init__(self) -> None:
        self.readings = 0

    def read(self, url: str) -> dict[str, ReplicaCounts]:
        assert url == "http://here"
        self.readings += 1
        served = Histogram((1.0, float("inf")), (self.readings, 0), float(self.readings))
        return {"a": ReplicaCounts("stt", service=served, ends={"done": float(self.readings)})}


def progress(elapsed_s: float, sent: int) -> RunProgress:
    found = RunProgress(10, time.time() - elapsed_s)
    found.traffic[0] = Counter(sent=sent, bytes_sent=10 * sent, bytes_received=20 * sent)
    return found


def test_the_window_is_the_measured_time() -> None:
    """The replicas are read once at the start and once at the end of the measured time, whatever comes between."""
    replicas = Replicas()
    windower = WindowWatcher("http://here", 5, 8, replicas.read)
    for elapsed_s, sent in ((1, 10), (5, 50), (6, 60), (7, 70), (8, 80), (9, 90)):
        windower(progress(elapsed_s, sent))
    window = windower.window()
    assert replicas.readings == 2
    assert (window.frames_sent, window.bytes_sent, window.bytes_received) == (30, 300, 600)
    assert window.stages["stt"].service.count == 1
    assert window.changed == ()


def test_a_run_that_ends_early_has_no_window() -> None:
    """A run that never reached the end of its measured time gives an error, not half a window."""
    windower = WindowWatcher("http://here", 5, 8, Replicas().read)
    windower(progress(6, 10))
    with pytest.raises(BackendError, match="ended before"):
        windower.window()


@pytest.mark.parametrize("url", ["ws://h:1/v1", "ws://h:1/v1/", "ws://h:1"])
def test_the_server_behind_its_sockets(url: str) -> None:
    """The metrics are at the root of the address whose sockets are called."""
    assert http_root(url) == "http://h:1"
