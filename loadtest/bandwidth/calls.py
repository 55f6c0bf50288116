"""Conversations over the pair: our server in one namespace, callers in the other, and what crossed between them."""

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

from loadtest.bandwidth.caller import Appointment, AudioPath, BandwidthCall, first, hold_call
from loadtest.bandwidth.capture import Packet, capturing
from loadtest.bandwidth.netns import Pair
from loadtest.bandwidth.speech import utterances
from rejoinder.core.errors import BackendError
from rejoinder.core.wire.formats import AudioFormat

PLAIN_PORT, TLS_PORT = 8000, 8443
_START_S, _STOP_S = 90.0, 10.0
_TURNS = 2
# Calls begin apart, so that their messages do not coincide.
_STAGGER_S = 0.137

LINES = (
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
class Watched:
    """Calls that were held at the same time, and all packets of them."""

    calls: tuple[BandwidthCall, ...]
    packets: tuple[Packet, ...]


class Exchange:
    """Our servers on the pair, one in the clear and one with TLS, while the context lasts."""

    def __init__(self, pair: Pair, trust: ssl.SSLContext) -> None:
        self._pair = pair
        self._trust = trust

    def watch(self, lines: Sequence[AudioPath]) -> Watched:
        """Hold a call on each line, all at once; raises BackendError if one fails."""
        with capturing(self._pair.caller) as capture:
            try:
                calls = asyncio.run(_hold(self._pair, lines, self._trust))
            except* BackendError as failed:
                raise first(failed) from None
        return Watched(tuple(calls), tuple(capture.packets))


@contextmanager
def exchange(pair: Pair) -> Iterator[Exchange]:
    """Start both servers; raises BackendError if one does not come up."""
    with tempfile.TemporaryDirectory(prefix="rejoinder-tls-") as folder:
        certificate = _certificate(Path(folder), pair.server.address)
        with _server(pair, PLAIN_PORT, None), _server(pair, TLS_PORT, certificate):
            yield Exchange(pair, ssl.create_default_context(cafile=certificate))


async def _hold(pair: Pair, lines: Sequence[AudioPath], trust: ssl.SSLContext) -> list[BandwidthCall]:
    spoken = {rate: tuple(utterances(rate)[1 : 1 + _TURNS]) for rate in {line.wire.rate for line in lines}}
    async with asyncio.TaskGroup() as group:
        tasks = []
        for line in lines:
            port = TLS_PORT if line.tls else PLAIN_PORT
            appointment = Appointment(
                pair.caller, address=pair.server.address, port=port, utterances=spoken[line.wire.rate], trust=trust
            )
            tasks.append(group.create_task(hold_call(line, appointment)))
            await asyncio.sleep(_STAGGER_S)
    return [task.result() for task in tasks]


@contextmanager
def _server(pair: Pair, port: int, certificate: Path | None) -> Iterator[None]:
    """Our server with emulated engines, listening; with a certificate it speaks TLS."""
    command = [
        sys.executable,
        "-m",
        "deployments.local.bare_host",
        "--address",
        pair.server.address,
        "--port",
        str(port),
    ]
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
        with pair.caller.socket(socket.SOCK_STREAM) as door:
            if door.connect_ex((pair.server.address, port)) == 0:
                return
        time.sleep(0.2)
    raise BackendError("the server did not start.", "Its output says why.", stage="bandwidth")


def _certificate(folder: Path, address: str) -> Path:
    """A self-made certificate for an address, its key beside it."""
    certificate = folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=rejoinder", "-addext", f"subjectAltName=IP:{address}"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate
