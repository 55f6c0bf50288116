"""Tests of who listens on a port, and of the processes that a killed `rejoinder serve` leaves."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cluster.leftovers import NODE_FOLDER, OWNER_FILE, stop_leftovers, write_owner
from cluster.listeners import check_port, listeners
from rejoinder.core.errors import ConfigError
from tests.system.harness.watching import wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield the folder of a node, as `rejoinder serve` makes it."""
    path = Path(tempfile.mkdtemp(prefix=NODE_FOLDER, dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def haproxy(folder: Path, tmp_path: Path) -> Iterator[psutil.Process]:
    """Run a process that has HAProxy's name and the node's configuration file on its command line."""
    link = tmp_path / "haproxy"
    link.symlink_to(sys.executable)
    command = [str(link), "-c", "import time; time.sleep(60)", "-f", str(folder / "haproxy" / "haproxy.cfg")]
    process = subprocess.Popen(command)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def test_the_owner_of_a_port_is_named() -> None:
    """The error for a port in use names the process that listens there, and how to stop it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert [listener.pid for listener in listeners(port)] == [os.getpid()]
        with pytest.raises(ConfigError) as refused:
            check_port("127.0.0.1", port, "http_options.port")
    assert f"process {os.getpid()} (" in refused.value.message
    assert f"kill {os.getpid()}" in refused.value.remedy
    assert refused.value.field == "http_options.port"
    check_port("127.0.0.1", port, "http_options.port")
    check_port("127.0.0.1", 0, "http_options.port")


@pytest.mark.parametrize(("host", "says"), [("192.0.2.1", "cannot be used"), ("no-such-host.invalid", "is unknown")])
def test_an_address_of_another_machine_is_refused(host: str, says: str) -> None:
    """An address that is not one of this machine, or a name without an address, is refused."""
    with pytest.raises(ConfigError, match=says):
        check_port(host, 18_000, "http_options.port")


@pytest.mark.parametrize("owner", ["1 0.5", "", "garbage"], ids=["another process", "empty", "not a number"])
def test_haproxy_of_a_dead_owner_is_stopped(folder: Path, tmp_path: Path, owner: str) -> None:
    """HAProxy is stopped and the folder deleted if the process that owns the node no longer runs.

    A later process with the same id is another one: its start time differs.
    """
    (folder / OWNER_FILE).write_text(owner, encoding="ascii")
    with haproxy(folder, tmp_path) as process:
        assert process.pid in stop_leftovers()
        assert not process.is_running()
    assert not folder.exists()


def test_haproxy_of_a_running_owner_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """While the owner of the node runs, its HAProxy and its folder stay."""
    write_owner(folder)
    with haproxy(folder, tmp_path) as process:
        assert process.pid not in stop_leftovers()
        assert process.is_running()
    assert folder.exists()


def test_haproxy_of_others_is_left_alone(tmp_path: Path) -> None:
    """HAProxy with a configuration file elsewhere is never stopped."""
    with haproxy(tmp_path, tmp_path) as process:
        assert process.pid not in stop_leftovers()
        assert process.is_running()


@contextmanager
def worker(folder: Path) -> Iterator[psutil.Process]:
    """Run a process that has a log open in the node's folder, as Ray's workers do, and ignores SIGTERM."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    (folder / "logs").mkdir()
    with (folder / "logs" / "worker.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=log)
    wait_until(lambda: (folder / "logs" / "worker.log").stat().st_size > 0, 10, "the worker's start")
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def test_ray_processes_of_a_dead_owner_are_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker with a log in the folder of a dead owner is ended, even if it ignores SIGTERM or is stopped."""
    monkeypatch.setattr("cluster.leftovers.STOP_S", 1.0)
    (folder / OWNER_FILE).write_text("1 0.5", encoding="ascii")
    with worker(folder) as process:
        process.suspend()
        assert stop_leftovers() == [process.pid]
        assert not process.is_running()
    assert not folder.exists()


@pytest.mark.parametrize("released", [False, True])
def test_the_guard_ends_the_node_of_a_killed_owner(folder: Path, released: bool) -> None:
    """If the owner of a node is killed, its guard ends the node's processes. A released guard ends nothing."""
    code = (
        "import pathlib, sys, time\nfrom cluster.leftovers import NodeGuard, write_owner\n"
        "write_owner(pathlib.Path(sys.argv[1])); guard = NodeGuard()\n"
        "if sys.argv[2] == 'True': guard.release()\n"
        "print(flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(folder), str(released)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    owner.stdout.readline()
    with worker(folder) as process:
        owner.kill()
        owner.wait()
        owner.stdout.close()
        if released:
            time.sleep(4)
            assert process.status() != psutil.STATUS_ZOMBIE
        else:
            wait_until(lambda: process.status() == psutil.STATUS_ZOMBIE, 30, "the end of the worker")
            wait_until(lambda: not folder.exists(), 10, "the removal of the folder")
