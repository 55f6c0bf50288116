"""Tests of attacks on a real system: what a stranger on the network and another user of the machine can do."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster.haproxy import DEFAULT_REQUEST_S
from tests.system.harness.served import Served, serving
from tests.system.harness.wire_caller import realtime_url

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

KEY = "alpha"
HEADERS = {"Authorization": f"Bearer {KEY}"}
HALF_OPEN = 500
"""Sockets with half a request, and as many silent ones."""
NOBODY = 65534
EMULATED = {stage: {"engine": "emulated"} for stage in ("stt", "llm", "tts")}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {**os.environ, "REJOINDER_API_KEYS": f"{KEY}, beta"}
    args = {**EMULATED, "limits": {"first_event_s": 300}}
    with serving(tmp_path_factory.mktemp("strangers"), args, environment=environment) as found:
        yield found


async def _status(served: Served, headers: dict[str, str]) -> int:
    """Try to open a session, and return the HTTP status of the answer: 101 if it is opened."""
    try:
        async with websockets.connect(realtime_url(served.url), additional_headers=headers):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_pages_and_keys_are_checked_behind_haproxy(served: Served) -> None:
    """A page of another origin gets 403, a wrong key 401. A key behind a blank and a client secret open a session."""
    evil = {**HEADERS, "Origin": "https://evil.example"}
    own = {**HEADERS, "Origin": served.url}
    statuses = [await _status(served, headers) for headers in (evil, own, {}, {"Authorization": "Bearer beta"})]
    assert statuses == [403, 101, 401, 101]
    secret = httpx2.post(f"{served.url}/v1/realtime/client_secrets", headers=HEADERS, timeout=10).json()["value"]
    assert await _status(served, {"Authorization": f"Bearer {secret}"}) == 101
    assert httpx2.get(f"{served.url}/metrics/targets", timeout=10).status_code == 401


async def test_attacks_end_and_another_call_goes_on(served: Served) -> None:
    """A large message gets close code 1009 and a flood of pings 1008, while another call is answered at once."""
    async with websockets.connect(realtime_url(served.url), additional_headers=HEADERS) as other:
        await other.recv()
        codes = []
        for attack in ("message", "pings"):
            async with websockets.connect(realtime_url(served.url), additional_headers=HEADERS) as evil:
                try:
                    if attack == "message":
                        await evil.send('{"type":"session.update","session":{"x":[' + "[]," * 4_000_000 + "[]]}}")
                    else:
                        for _ in range(200):
                            for _ in range(10):
                                await evil.ping()
                            # Read now and then: a client that reads nothing misses the close frame.
                            await asyncio.sleep(0.001)
                    async for _ in evil:
                        pass
                except ConnectionClosed:
                    pass
                codes.append(evil.close_code)
            began = time.monotonic()
            await other.send(json.dumps({"type": "input_audio_buffer.clear"}))
            while json.loads(await other.recv())["type"] != "input_audio_buffer.cleared":
                pass
            assert time.monotonic() - began < 1
        assert codes == [1009, 1008]


async def test_half_open_requests_are_closed_and_idle_calls_are_not(served: Served) -> None:
    """500 sockets that send nothing, and 500 that send half a request, are closed after HAProxy's limit for headers.

    A call whose client sends nothing of its own goes on meanwhile.
    """
    async with websockets.connect(realtime_url(served.url), additional_headers=HEADERS, ping_interval=None) as call:
        await call.recv()
        port = int(served.url.rsplit(":", 1)[1])
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(2 * HALF_OPEN)]
        for half in sockets[HALF_OPEN:]:
            half.sendall(b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\n")
        await asyncio.sleep(DEFAULT_REQUEST_S + 5)
        for one in sockets:
            one.settimeout(1)
            with suppress(ConnectionResetError):
                answer = one.recv(1000)
                assert answer == b"" or b" 408 " in answer, answer
            one.close()
        await call.send(json.dumps({"type": "input_audio_buffer.clear"}))
        assert json.loads(await call.recv())["type"] == "input_audio_buffer.cleared"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_reaches_neither_the_admin_socket_nor_the_logs(served: Served) -> None:
    """Another user of the machine can neither connect to HAProxy's admin socket nor list the folder with Ray's logs."""
    family = psutil.Process(served.process.pid).children(recursive=True)
    commands = [process.cmdline() for process in family if process.name().startswith("haproxy")]
    config = Path(next(word for command in commands for word in command if word.endswith("haproxy.cfg")))
    admin = Path(next(line.split()[2] for line in config.read_text().splitlines() if "stats socket" in line))
    assert admin.exists()
    folder = next(parent for parent in config.parents if parent.parent == Path("/tmp"))
    attempt = (
        "import os, socket, sys\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "for act in (lambda: socket.socket(socket.AF_UNIX).connect(sys.argv[1]), lambda: os.listdir(sys.argv[2])):\n"
        "    try:\n        act()\n    except PermissionError:\n        print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", attempt, str(admin), str(folder)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["refused", "refused"], done


def test_only_the_machine_itself_reaches_the_ports(served: Served) -> None:
    """Every port of `rejoinder serve` on the loopback address listens there only, Ray's and HAProxy's included.

    The exception are the gRPC servers of Serve's replicas, for which Serve has no address: one for each replica.
    """
    family = [psutil.Process(served.process.pid), *psutil.Process(served.process.pid).children(recursive=True)]
    outside: dict[str, int] = {}
    for process in family:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for connection in process.net_connections("tcp"):
                address = connection.laddr.ip if connection.status == psutil.CONN_LISTEN else "127.0.0.1"
                if not ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback:
                    outside[process.name()] = outside.get(process.name(), 0) + 1
    replicas = [process for process in family if process.name().startswith("ray::ServeRepli")]
    assert all(name.startswith("ray::ServeRepli") for name in outside), outside
    assert sum(outside.values()) <= len(replicas), outside
