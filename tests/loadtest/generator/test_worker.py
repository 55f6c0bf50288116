"""Tests of one worker (a process of the load generator that runs calls) in virtual time, with fake connections."""

from __future__ import annotations

import asyncio
import time
import wave
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest

from loadtest.callers.call_socket import CallRefused, CallSocket
from loadtest.generator import worker
from loadtest.generator.assignment import WorkerAssignment
from loadtest.generator.worker import Worker
from loadtest.scenario.scenario import CallerBehavior, Scenario
from loadtest.scenario.schedule import Call
from rejoinder.core.audio.pcm import WIRE_RATE, float_to_pcm16
from tests.actors.virtual_time import VirtualLoop, run_virtual

MEASURE_FROM_S, MEASURE_TO_S, DRAIN_S = 2.0, 12.0, 4.0


@dataclass
class FakeServer:
    """A server without a network.

    Attributes:
        refuse: HTTP status with which every call is refused, or None.
        drop_after_s: Time after which each call is dropped, or None.
    """

    refuse: int | None = None
    drop_after_s: float | None = None
    sockets: list[CallSocket] = field(default_factory=list)

    async def dial(self, url: str, key: str, greeting: bytes, on_lost: Callable[[CallSocket], None]) -> CallSocket:
        if self.refuse is not None:
            raise CallRefused(self.refuse)
        socket = CallSocket(greeting, on_lost)
        socket._transport = FakeTransport()  # type: ignore[assignment]  # has every method that a caller uses
        self.sockets.append(socket)
        if self.drop_after_s is not None:
            asyncio.get_running_loop().call_later(self.drop_after_s, on_lost, socket)
        return socket


class FakeTransport:
    def send(self, kind: object, message: bytes) -> None:
        pass

    send_close = send_ping = disconnect = lambda self, *_: None

    async def wait_disconnected(self) -> None:
        pass


@pytest.fixture
def clip(tmp_path: FilePath) -> str:
    tone = 0.3 * np.sign(np.sin(np.arange(WIRE_RATE) * 0.05))
    path = tmp_path / "clip.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(WIRE_RATE)
        file.writeframes(float_to_pcm16(tone))
    return str(path)


def hold(
    clip: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch, *, stall: tuple[float, float] | None = None
) -> Any:
    """Run a worker with two calls that speak `clip` (a WAV path), and return its reports. The last report is final.

    `stall` is the start and length, in seconds, of a simulated stop of the process.
    """
    behavior = CallerBehavior(think_s=1.0, answer_timeout_s=60)
    scenario = Scenario("ws://127.0.0.1:9/v1", 2, 10, drain_s=DRAIN_S, clips=(clip,), behavior=behavior)
    calls = tuple(
        Call(number, at_s=0.5, ends_s=MEASURE_TO_S, region="local", slot=number, seed=number) for number in range(2)
    )
    reports: list[dict[str, Any]] = []

    async def run(patch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        patch.setattr(time, "monotonic", loop.time)
        patch.setattr(worker, "dial", server.dial)
        if stall:
            loop.call_later(stall[0], lambda: setattr(loop._jumping, "now", loop._jumping.now + stall[1]))
        assignment = WorkerAssignment(
            scenario, calls=calls, measure_from_s=MEASURE_FROM_S, measure_to_s=MEASURE_TO_S, start_at=0.0
        )
        await Worker(assignment, loop.time(), reports.append).run()

    with monkeypatch.context() as patch:
        run_virtual(run(patch))
    assert reports[-1]["final"]
    return reports


def test_calls_that_outlast_the_drain_are_counted(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls whose turns are unanswered are still open at the end of the drain, the time for calls to end.

    They count as undrained and their turns as unanswered.
    """
    counts = Counter(hold(clip, FakeServer(), monkeypatch)[-1]["counts"])
    assert (counts["opened"], counts["undrained"], counts["dropped"]) == (2, 2, 0)
    assert counts["unanswered"] == counts["turns"] > 0


@pytest.mark.parametrize(("status", "count"), [(503, "refused"), (429, "refused"), (404, "setup_failed")])
def test_a_refusal_is_not_a_failure(clip: str, monkeypatch: pytest.MonkeyPatch, status: int, count: str) -> None:
    """HTTP 429 and 503 count as refused. Every other status counts as a failed setup.

    The cause of the failing call has the status.
    """
    counts = Counter(hold(clip, FakeServer(refuse=status), monkeypatch)[-1]["counts"])
    assert counts == Counter({count: 2, f"failing:local:refused with HTTP {status}": 2})


def test_a_call_that_the_server_ends_counts_as_dropped(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server ends both calls, each counts once as dropped, and no call stays open."""
    reports = hold(clip, FakeServer(drop_after_s=3.0), monkeypatch)
    counts = Counter(reports[-1]["counts"])
    assert (counts["opened"], counts["dropped"], counts["undrained"]) == (2, 2, 0)
    assert counts["failing:local:the connection was lost"] == 2
    assert reports[-1]["live"] == 0


def test_every_frame_of_a_punctual_worker_was_sent(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All scheduled frames of two callers, 50 per second each, are sent."""
    traffic = hold(clip, FakeServer(), monkeypatch)[-1]["traffic"]
    assert traffic["scheduled"] == traffic["sent"] == pytest.approx(2 * 50 * (MEASURE_TO_S + DRAIN_S - 0.5), rel=0.01)


def test_a_stall_at_the_end_of_the_measured_time_is_measured(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report after the measured time counts for the self-checks if it covers a stall that began within it."""
    reports = hold(clip, FakeServer(), monkeypatch, stall=(MEASURE_TO_S - 2.5, 3.0))
    (late,) = [line for line in reports if not line["final"] and line["at_s"] > MEASURE_TO_S and line["measuring"]]
    assert late["at_s"] == pytest.approx(MEASURE_TO_S + 0.5, abs=0.1)


def test_frames_that_a_late_worker_never_sent_are_missed(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a worker stops until the end of the drain, the frames that were due count as scheduled but not sent."""
    stop_at = MEASURE_TO_S + DRAIN_S - 1.0
    traffic = hold(clip, FakeServer(), monkeypatch, stall=(stop_at, 1.5))[-1]["traffic"]
    # The pacer may still send a few of them before it is cancelled.
    assert traffic["scheduled"] - traffic["sent"] == pytest.approx(2 * 50 * 1.5, abs=10)
