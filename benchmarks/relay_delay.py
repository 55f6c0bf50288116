"""Delay that a TURN server adds to a call over WebRTC: coturn on loopback, against the direct path, in the same run.

    python -m benchmarks.relay_delay --pings 300

The host runs in a process of its own (`benchmarks.phone_cost`). Two calls stand at the same time, one direct and one
through the relay (its client has no other path), and take turns to send `rejoinder.ping` over the data channel. Printed
are the round trips in ms until `rejoinder.pong`, and what the relay adds. On loopback the network adds nothing, so the
difference is the relay's own work and its two further hops through the kernel. It needs Debian's package coturn.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from aiortc import RTCIceServer, RTCPeerConnection

from benchmarks.phone_cost import serving
from cluster.environment import free_port
from deployments.transports.webrtc.aiortc_internals import bind_media
from loadtest.bandwidth.webrtc_peer import PacketTrack, WebRtcPeer
from rejoinder.core.wire.fields import Json

USER, PASSWORD, REALM = "benchmark", "benchmark", "benchmark"
RELAY_PORTS = 200
GAP_S = 0.02


@asynccontextmanager
async def relaying() -> AsyncIterator[RTCIceServer]:
    """Run coturn on loopback ports of its own, and yield how clients reach it."""
    if not shutil.which("turnserver"):
        raise SystemExit("turnserver is missing: apt-get install coturn")
    port, first = free_port(), free_port()
    first = min(first, 65_535 - RELAY_PORTS)
    command = ["turnserver", "-n", "--log-file=stdout", "--no-cli", "--no-tls", "--no-dtls", "--lt-cred-mech"]
    command += ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--allow-loopback-peers", "--pidfile="]
    command += [f"--listening-port={port}", f"--min-port={first}", f"--max-port={first + RELAY_PORTS}"]
    command += [f"--user={USER}:{PASSWORD}", f"--realm={REALM}"]
    silent = asyncio.subprocess.DEVNULL
    server = await asyncio.create_subprocess_exec(*command, stdout=silent, stderr=silent)
    try:
        await asyncio.sleep(1.0)
        if server.returncode is not None:
            raise SystemExit(f"turnserver ended with status {server.returncode}")
        yield RTCIceServer(f"turn:127.0.0.1:{port}", USER, PASSWORD)
    finally:
        if server.returncode is None:
            server.terminate()
        await server.wait()


class Pinger:
    """Measures round trips of events over one call."""

    def __init__(self) -> None:
        self.rounds_ms: list[float] = []
        self._pong = asyncio.Event()

    def take(self, event: Json) -> None:
        """Note an event of the host."""
        if event["type"] == "rejoinder.pong":
            self._pong.set()

    async def ping(self, peer: WebRtcPeer) -> None:
        """Measure one round trip."""
        self._pong.clear()
        sent = time.perf_counter()
        peer.send({"type": "rejoinder.ping"})
        async with asyncio.timeout(10):
            await self._pong.wait()
        self.rounds_ms.append((time.perf_counter() - sent) * 1000)


async def _compare(pings: int) -> None:
    async with serving() as (address, _), relaying() as turn:
        pingers = {"direct": Pinger(), "relayed": Pinger()}
        peers: dict[str, WebRtcPeer] = {}

        def prepare(connection: RTCPeerConnection) -> None:
            if not peers:  # the direct call
                bind_media(connection, ["127.0.0.1"], range(0))

        for name, pinger in pingers.items():
            began = time.perf_counter()
            relay = turn if name == "relayed" else None
            peers[name] = await WebRtcPeer.open(
                f"http://{address}/v1", PacketTrack(), turn=relay, prepare=prepare, take=pinger.take
            )
            if peers[name].relayed != (name == "relayed"):
                raise SystemExit(f"the {name} call has another path than it should")
            print(f"{name:8} set-up {1000 * (time.perf_counter() - began):6.0f} ms")
        for _ in range(pings):
            for name, pinger in pingers.items():
                await pinger.ping(peers[name])
                await asyncio.sleep(GAP_S)
        for name, pinger in pingers.items():
            p50, p95 = np.percentile(pinger.rounds_ms, [50, 95])
            print(f"{name:8} round trip p50 {p50:6.2f} ms, p95 {p95:6.2f} ms")
        direct, relayed = (np.array(pinger.rounds_ms) for pinger in pingers.values())
        added = np.percentile(relayed - direct, [25, 50, 75])
        print(f"the relay adds {added[1]:.2f} ms to a round trip (quartiles {added[0]:.2f} to {added[2]:.2f} ms)")
        for peer in peers.values():
            await peer.close()


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pings", type=int, default=300)
    options = parser.parse_args()
    asyncio.run(_compare(options.pings))


if __name__ == "__main__":
    main()
