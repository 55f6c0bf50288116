"""Tests of the machines in namespaces that the tests of clusters run on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rejoinder.core.errors import ConfigError
from tests.system.harness.nodes import ROOT
from tests.system.harness.watching import wait_until
from tests.system.machines import machines
from tests.system.machines.machines import Link, Machine, Network, missing, network, process_runs

netns = pytest.mark.netns

# Prints the times of `count` UDP messages to the machine's echo server and back in milliseconds, "lost" after 0.3 s.
_PING = """
import socket, sys, time
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.settimeout(0.3)
for number in range(int(sys.argv[2])):
    began = time.monotonic()
    probe.sendto(b"%d" % number, (sys.argv[1], 7))
    try:
        probe.recv(100)
        print(1000 * (time.monotonic() - began))
    except TimeoutError:
        print("lost")
"""
_ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 7))
while True:
    server.sendto(*server.recvfrom(100))
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as created:
        for name, link in (("near", Link()), ("far", Link(delay_ms=40)), ("lossy", Link(loss=0.3))):
            machine = created.add(name, link)
            subprocess.Popen(machine.command(sys.executable, "-c", _ECHO))
        for machine in created.machines.values():
            wait_until(lambda at=machine: _ping(None, at)[0] != "lost", 10, f"an echo from {machine.name}")  # type: ignore[misc]
        yield created


def _ping(source: Machine | None, target: Machine, count: int = 1) -> list[str]:
    """Return the round-trip times of `count` messages, in milliseconds or "lost".

    `source` is the sending machine, None for this computer.
    """
    words = [sys.executable, "-c", _PING, target.address, str(count)]
    done = subprocess.run(source.command(*words) if source else words, check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root and a required tool no network is created. ConfigError names both, the tool with its package."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "ip" else f"/usr/bin/{tool}")
    assert missing() == ["root", "ip (Debian package iproute2)"]
    with pytest.raises(ConfigError, match="need root, ip"), network():
        raise AssertionError("the network was created")


@netns
def test_a_link_that_cannot_be_emulated_is_refused(monkeypatch: pytest.MonkeyPatch, net: Network) -> None:
    """Without the TUN device, adding a machine behind a slow link raises ConfigError, which names the device."""
    monkeypatch.setattr(machines, "TUN", Path("/dev/net/none"))
    with pytest.raises(ConfigError, match="needs the device /dev/net/none"):
        net.add("slow", Link(delay_ms=1))


@netns
def test_a_machine_has_its_own_name_files_and_processes(net: Network, tmp_path: Path) -> None:
    """A machine has its own hostname, resolves the others, and sees the repository.

    It sees neither the other processes of this computer nor its /tmp and home folder.
    """
    near = net.machines["near"]
    assert near.run("hostname").stdout == "near\n"
    assert near.run("getent", "hosts", "far").stdout.split()[0] == net.machines["far"].address
    assert near.run("ls").stdout.split() == sorted(near.run("ls", str(ROOT)).stdout.split())
    assert (ROOT / "pyproject.toml").name in near.run("ls").stdout
    assert near.run("ls", "/tmp").stdout == ""
    assert near.run("test", "-e", str(tmp_path)).returncode != 0
    assert int(near.run("sh", "-c", "echo /proc/[0-9]*").stdout.count("/proc/")) < 10
    assert near.run("test", "-e", str(Path.home() / ".bashrc")).returncode != 0


@netns
def test_machines_reach_each_other_and_this_computer(net: Network) -> None:
    """Each machine reaches the other, and this computer reaches both. A link without delay takes below 5 ms."""
    near, far = net.machines["near"], net.machines["far"]
    assert min(map(float, _ping(None, near, 20))) < 5
    assert min(map(float, _ping(far, near, 5))) >= 80
    assert min(map(float, _ping(near, far, 5))) >= 80


@netns
def test_a_slow_link_delays_both_directions(net: Network) -> None:
    """Over a link with 40 ms, a round trip takes at least 80 ms, and without load below 90 ms."""
    times = sorted(map(float, _ping(None, net.machines["far"], 9)))
    assert times[0] >= 80
    assert times[4] < 90


@netns
def test_a_lossy_link_loses_its_share(net: Network) -> None:
    """Over a link that loses 30% in each direction, about 51% of the round trips are lost."""
    lost = sum(time_ms == "lost" for time_ms in _ping(None, net.machines["lossy"], 12))
    assert 2 <= lost <= 10  # seeded; a machine that loses nothing or everything is outside


@netns
def test_a_machine_is_cut_off_and_restored(net: Network) -> None:
    """A machine that is cut off does not answer, and answers again after it was restored. Its processes run on."""
    for name in ("near", "far"):
        machine = net.machines[name]
        machine.cut_off()
        assert _ping(None, machine) == ["lost"]
        assert machine.running
        machine.restore()
        wait_until(lambda at=machine: _ping(None, at) != ["lost"], 10, "an echo")  # type: ignore[misc]


@netns
def test_killing_a_machine_ends_all_its_processes() -> None:
    """After a machine was killed, none of its processes is left, not even one that became a daemon."""
    with network() as net:
        machine = net.add("victim")
        machine.run("sh", "-c", "setsid sleep 987 >/dev/null 2>&1 &")
        wait_until(lambda: len(_processes_of("sleep 987")) == 1, 10, "the daemon")
        machine.kill()
        assert not machine.running
        assert not _processes_of("sleep 987")


@netns
def test_nothing_is_left_after_an_exception() -> None:
    """After an exception in the context, its processes, its interface on this computer and its files are gone."""
    made: list[Network] = []
    with pytest.raises(ZeroDivisionError):
        _fail_within(made)
    net = made[0]
    assert not any(machine.running for machine in net.machines.values())
    assert not process_runs(net.switch)
    assert not Path("/sys/class/net", net.name).exists()
    assert not net.folder.exists()


def _fail_within(made: list[Network]) -> None:
    with network() as net:
        made.append(net)
        net.add("one")
        net.add("two", Link(delay_ms=1))
        assert Path("/sys/class/net", net.name).exists()
        raise ZeroDivisionError


@netns
def test_nothing_is_left_after_the_test_process_was_killed() -> None:
    """If the process that made the network is killed, its machines, its switch and its interface disappear."""
    program = (
        "import time; from tests.system.machines.machines import network\n"
        "with network() as net:\n"
        "    print(net.name, net.switch, net.add('one').process, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        interface, switch, machine = process.stdout.readline().split()
        assert psutil.pid_exists(int(switch))
        assert psutil.pid_exists(int(machine))
        process.kill()
    wait_until(lambda: not Path("/sys/class/net", interface).exists(), 10, "the removal of the interface")
    assert not process_runs(int(switch))
    assert not process_runs(int(machine))


def _processes_of(command: str) -> list[psutil.Process]:
    return [
        process for process in psutil.process_iter(["cmdline"]) if " ".join(process.info["cmdline"] or []) == command
    ]
