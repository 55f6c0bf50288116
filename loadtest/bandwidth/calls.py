"""Run calls over a virtual Ethernet pair and capture their packets.

Rejoinder's server runs in one network namespace, and the callers run in the other.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.bandwidth.caller import AudioPath, BandwidthCall, CallTarget, first, hold_call
from loadtest.bandwidth.capture import Packet, capturing
from loadtest.bandwidth.netns import Pair
from loadtest.bandwidth.speech import utterances
from loadtest.bandwidth.webrtc_call import WebRtcRow, hold_webrtc_call, webrtc_rows
from rejoinder.core.errors import BackendError
from rejoinder.core.wire.formats import AudioFormat

PLAIN_PORT, TLS_PORT, NO_DTX_PORT = 8000, 8443, 8001
_START_S, _STOP_S = 90.0, 10.0
_TURNS = 2
# Delay between the starts of two calls in seconds. It is not a multiple of a message's length, so that two calls do not
# send their messages at the same time.
_STAGGER_S = 0.137

AUDIO_PATHS = (
    AudioPath(AudioFormat.PCM, 20),
    AudioPath(AudioFormat.PCM, 100),
    AudioPath(AudioFormat.PCM, 100, tls=True),
    AudioPath(AudioFormat.PCM, 100, muted=True),
    AudioPath(AudioFormat.PCMU, 20),
    AudioPath(AudioFormat.PCMU, 20, tls=True),
    AudioPath(AudioFormat.PCMU, 100),
    AudioPath(AudioFormat.PCMA, 20),
    AudioPath(AudioFormat.PCMA, 100),
)


@dataclass(frozen=True, slots=True)
class CapturedCalls:
    """Logs of calls that ran at the same time, and all packets captured meanwhile."""

    calls: tuple[BandwidthCall, ...]
    packets: tuple[Packet, ...]


class BandwidthServers:
    """Two running Rejoinder servers, one without and one with TLS, in one of two joined network namespaces.

    `running_servers` starts them. Calls come from the other namespace.
    """

    def __init__(self, pair: Pair, trust: ssl.SSLContext) -> None:
        self._pair = pair
        self._trust = trust

    def capture_calls(self, paths: Sequence[AudioPath]) -> CapturedCalls:
        """Make one call per path, all at the same time, and capture their packets.

        Raises:
            BackendError: A call failed, or the capture lost a packet.
        """
        with capturing(self._pair.caller) as capture:
            try:
                calls = asyncio.run(_hold(self._pair, paths, self._trust))
            except* BackendError as errors:
                raise first(errors) from None
        return CapturedCalls(tuple(calls), tuple(capture.packets))

    def measure_webrtc(self) -> list[WebRtcRow]:
        """Make one call over WebRTC with DTX and one without, one after the other, and return their traffic.

        Raises:
            BackendError: A call failed, or the capture lost a packet.
        """
        with capturing(self._pair.caller) as capture:
            logs = [hold_webrtc_call(self._pair, PLAIN_PORT, dtx=True)]
            with _server(self._pair, NO_DTX_PORT, None, "--no-dtx"):
                logs.append(hold_webrtc_call(self._pair, NO_DTX_PORT, dtx=False))
        server = self._pair.server.address
        return [row for log in logs for row in webrtc_rows(log, capture.packets, server)]


@contextmanager
def running_servers(pair: Pair) -> Iterator[BandwidthServers]:
    """Start a server without TLS and one with TLS in the server's namespace. Stop both when the context ends.

    Raises:
        BackendError: A server did not start.
    """
    with tempfile.TemporaryDirectory(prefix="rejoinder-tls-") as folder:
        certificate = _certificate(Path(folder), pair.server.address)
        with _server(pair, PLAIN_PORT, None), _server(pair, TLS_PORT, certificate):
            yield BandwidthServers(pair, ssl.create_default_context(cafile=certificate))


async def _hold(pair: Pair, paths: Sequence[AudioPath], trust: ssl.SSLContext) -> list[BandwidthCall]:
    speech = {rate: tuple(utterances(rate)[1 : 1 + _TURNS]) for rate in {path.wire.rate for path in paths}}
    async with asyncio.TaskGroup() as group:
        tasks = []
        for path in paths:
            port = TLS_PORT if path.tls else PLAIN_PORT
            target = CallTarget(
                pair.caller, address=pair.server.address, port=port, utterances=speech[path.wire.rate], trust=trust
            )
            tasks.append(group.create_task(hold_call(path, target)))
            await asyncio.sleep(_STAGGER_S)
    return [task.result() for task in tasks]


@contextmanager
def _server(pair: Pair, port: int, certificate: Path | None, *options: str) -> Iterator[None]:
    """Run Rejoinder's server with emulated engines until the context ends. It uses TLS if `certificate` is given.

    `options` are further options of its command line.
    """
    command = [
        sys.executable,
        "-m",
        "deployments.local.bare_host",
        "--address",
        pair.server.address,
        "--port",
        str(port),
    ]
    command += options
    if certificate:
        command += ["--certificate", str(certificate), "--key", str(certificate.with_name("key.pem"))]
    with subprocess.Popen(pair.server.command(*command)) as server:
        try:
            _until_listening(server, pair, port)
            yield
        finally:
            server.terminate()
            try:
                server.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()


def _until_listening(server: subprocess.Popen[bytes], pair: Pair, port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        with pair.caller.socket(socket.SOCK_STREAM) as sock:
            if sock.connect_ex((pair.server.address, port)) == 0:
                return
        time.sleep(0.2)
    raise BackendError("the server did not start.", "See the server's output above.", stage="bandwidth")


def _certificate(folder: Path, address: str) -> Path:
    """Create a self-signed certificate for `address`, and its key `key.pem`, in `folder`. Return its path."""
    certificate = folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=rejoinder", "-addext", f"subjectAltName=IP:{address}"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate
