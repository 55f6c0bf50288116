"""Three regions on three machines behind slow links: clients choose the nearest and fail over to the next."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx2
import pytest

from loadtest.callers.openai_caller import ServerAddress, connected
from loadtest.callers.regions import nearest
from tests.system.harness.nodes import ROOT
from tests.system.harness.watching import wait_until
from tests.system.machines.machines import Link, Machine, Network, network

pytestmark = [pytest.mark.netns, pytest.mark.models, pytest.mark.timeout(240)]

# Round trips in milliseconds. The links' delays are half of them, in each direction.
ROUND_TRIPS_MS = {"near": 10.0, "middle": 80.0, "far": 200.0}
PORT = 8000


@pytest.fixture(scope="module")
def regions() -> Iterator[Network]:
    with network() as net:
        for name, rtt_ms in ROUND_TRIPS_MS.items():
            net.add(name, Link(delay_ms=rtt_ms / 2))
        entries = [f"--entry={name}={url(machine)}" for name, machine in net.machines.items()]
        for name, machine in net.machines.items():
            command = [sys.executable, "-m", "deployments.local.bare_host", f"--address={machine.address}"]
            command += [f"--port={PORT}", "--emulate=guide-500", f"--region={name}", *entries]
            subprocess.Popen(machine.command(*command))
        for machine in net.machines.values():
            wait_until(partial(answers, machine), 150, f"places of {machine.name}")
        yield net


def url(machine: Machine) -> str:
    """Return the base URL of the region's server."""
    return f"http://{machine.address}:{PORT}/v1"


def address(machine: Machine) -> ServerAddress:
    """Return the WebSocket address of the region's server."""
    return ServerAddress(url(machine).replace("http", "ws", 1))


def places(machine: Machine) -> dict[str, int] | None:
    """Return the places of the region's server, None if it does not answer."""
    try:
        found: dict[str, int] = httpx2.get(f"{url(machine)}/places", timeout=2).raise_for_status().json()
    except httpx2.HTTPError:
        return None
    return found


def answers(machine: Machine) -> bool:
    """Return True if the region's server says its places."""
    return places(machine) is not None


def sessions(machine: Machine) -> int:
    """Return the number of calls of the region's server."""
    found = places(machine)
    assert found is not None
    return found["sessions"]


async def test_the_nearest_region_gets_the_call(regions: Network) -> None:
    """From the farthest server's list, the client chooses the nearest region, and measures the round trips."""
    machines = regions.machines
    server, entries = await nearest(address(machines["far"]))
    assert [entry.name for entry in entries] == list(ROUND_TRIPS_MS)
    for entry in entries:
        assert entry.rtt_s is not None
        assert ROUND_TRIPS_MS[entry.name] <= entry.rtt_s * 1000 <= ROUND_TRIPS_MS[entry.name] + 60
        assert entry.free == 100
    async with connected(server):
        assert await asyncio.to_thread(sessions, machines["near"]) == 1
        assert await asyncio.to_thread(sessions, machines["far"]) == 0


def test_a_load_test_calls_the_nearest_region(regions: Network, tmp_path: Path) -> None:
    """`rejoinder load run --nearest` makes its calls in the nearest region and says which regions there are."""
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "rejoinder.cli", "load", "run", "--nearest", "--sessions=2", "--for=5s"]
    command += [f"--url={address(regions.machines['middle']).url}", f"--json={result}", "--set=owned=true"]
    command += ["--set=ramp_s=1", "--set=warm_up_s=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert "Regions, nearest first: near" in done.stdout, done.stdout + done.stderr
    run = json.loads(result.read_text(encoding="utf-8"))["counts"]
    assert run["sessions_failed"] == 0
    assert run["sessions_opened"] == 2


async def test_a_dead_region_is_left_out_and_failed_over(regions: Network) -> None:
    """After the death of the nearest region, a call that was to go there reaches the next one.

    A client that asks anew gets the list without it in front.
    """
    machines = regions.machines
    before, _ = await nearest(address(machines["far"]))
    assert before.url == address(machines["near"]).url
    await asyncio.to_thread(machines["near"].kill)
    async with connected(before):
        assert await asyncio.to_thread(sessions, machines["middle"]) == 1
    server, entries = await nearest(address(machines["far"]))
    assert [entry.name for entry in entries] == ["middle", "far", "near"]
    assert entries[-1].rtt_s is None
    assert server.url == address(machines["middle"]).url
