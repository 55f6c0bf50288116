"""Tests of the watch over the Ray head, with sockets and processes in place of Ray's."""

from __future__ import annotations

import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from cluster import head_watch
from cluster.head_watch import HeadLost, OwnProcesses, RemoteGcs, await_end, within
from rejoinder.core.resilience.head_fate import HeadState

NOWHERE = "http://127.0.0.1:9"


@contextmanager
def child(folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a child process with this name."""
    link = folder / name
    link.symlink_to(sys.executable)
    process = subprocess.Popen([str(link), "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_killed_processes_are_noticed(tmp_path: Path) -> None:
    """A killed process is gone although it is still a zombie, and a stopped one is not gone."""
    with child(tmp_path, "gcs_server") as gcs, child(tmp_path, "raylet") as raylet:
        head = OwnProcesses()
        assert head.state() == HeadState()
        gcs.send_signal(signal.SIGSTOP)
        assert head.state() == HeadState()
        raylet.kill()
        _await(lambda: head.state() == HeadState(raylet=False))
        with pytest.raises(HeadLost, match="raylet"):
            await_end(threading.Event(), head, NOWHERE, lambda _: None)
        gcs.kill()
        _await(lambda: head.state() == HeadState(gcs=False, raylet=False))


def _await(holds: object) -> None:
    assert callable(holds)
    for _ in range(500):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not within 5 s")


def test_the_gcs_of_another_machine_is_reached_by_its_port() -> None:
    """A GCS is there while its port accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        gcs = RemoteGcs(f"127.0.0.1:{server.getsockname()[1]}")
        assert gcs.state() == HeadState()
    assert gcs.state() == HeadState(gcs=False)


class Failing:
    """A head whose GCS is gone for some looks, and then `back` or not. The command is stopped soon after."""

    def __init__(self, gone: int, stop: threading.Event, *, back: bool = True) -> None:
        self._left = gone
        self._stop = stop
        self._back = back

    def state(self) -> HeadState:
        """Return whether the GCS is there."""
        self._left -= 1
        if self._left < -1:
            self._stop.set()
        return HeadState(gcs=self._left < 0 and self._back)


def test_a_lost_gcs_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says that the GCS is gone, and one that it is back. If it stays away, the command ends."""
    monkeypatch.setattr(head_watch, "LOOK_S", 0.01)
    said: list[str] = []
    stop = threading.Event()
    await_end(stop, Failing(3, stop), NOWHERE, said.append)
    assert ["gone" in sentence for sentence in said] == [True, False]
    assert "back" in said[1]
    stop.clear()
    with pytest.raises(HeadLost, match="Stopped"):
        await_end(stop, Failing(5, stop, back=False), NOWHERE, said.append)
    stop.clear()
    monkeypatch.setattr(head_watch, "CALLS_GO_ON_S", 0.05)
    with pytest.raises(HeadLost, match="GCS"):
        await_end(threading.Event(), Failing(10_000, stop), NOWHERE, said.append)


def test_what_hangs_is_not_waited_for() -> None:
    """`within` says whether a function has ended in time, also if it raised an error."""
    hang = threading.Event()
    assert not within(0.05, hang.wait)
    hang.set()
    assert within(5, hang.wait)
    assert within(5, lambda: 1 / 0)


class Health(http.server.BaseHTTPRequestHandler):
    """A server whose hosts have the numbers of calls in `sessions`, one after the other, and the last one for ever."""

    sessions: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        """Answer with the state of a host."""
        body = json.dumps({"sessions": self.sessions.pop(0) if len(self.sessions) > 1 else self.sessions[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_without_the_gcs_the_last_call_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command goes on while one of two hosts has calls, and ends when none has had any for ANSWERS answers."""
    monkeypatch.setattr(head_watch, "LOOK_S", 0.01)
    Health.sessions = [0, 2] * 10 + [0]
    server = http.server.HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(HeadLost, match="GCS"):
            await_end(
                threading.Event(),
                Failing(10_000, threading.Event()),
                f"http://127.0.0.1:{server.server_port}",
                lambda _: None,
            )
    finally:
        server.shutdown()
        server.server_close()
    assert Health.sessions == [0]
