"""Tests of the measurement of handshakes, against a server with a fixed number of places in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import websockets
from websockets.http11 import Request, Response

from benchmarks.handshakes import Handshake, cost_table, measure_cost, measure_refusals, refusals_line

REFUSALS_EACH = 3


class FixedPlaces:
    """A server that behaves as an entry with full hosts: each refused caller counts REFUSALS_EACH refused handshakes.

    Attributes:
        url: Its base URL.
    """

    def __init__(self, places: int) -> None:
        self.url = ""
        self._places, self._taken, self._refused = places, 0, 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FixedPlaces]:
        """Listen until the block ends."""
        async with websockets.serve(self._hold, "127.0.0.1", 0, process_request=self._decide) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def _hold(self, socket: websockets.ServerConnection) -> None:
        await socket.wait_closed()
        self._taken -= 1

    def _decide(self, socket: websockets.ServerConnection, request: Request) -> Response | None:
        if request.path == "/metrics/targets":
            target = [{"targets": [self.url.removeprefix("http://")], "labels": {"stage": "host"}}]
            return socket.respond(HTTPStatus.OK, json.dumps(target))
        if request.path == "/v1/places":
            return socket.respond(HTTPStatus.OK, json.dumps({"free": self._places - self._taken}))
        if request.path == "/metrics":
            return socket.respond(HTTPStatus.OK, f'rejoinder_sessions_refused_total{{reason="full"}} {self._refused}\n')
        if self._taken == self._places:
            self._refused += REFUSALS_EACH
            return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "full")
        self._taken += 1
        return None


async def test_the_cost_is_measured_from_free_places_to_none() -> None:
    """Two handshakes are measured with 2, 1 and 0 of five places free. The counters give the number of attempts."""
    async with FixedPlaces(5).running() as server:
        found = await measure_cost(server.url, repeats=2, free=2)
    assert [(handshake.admitted, handshake.attempts) for handshake in found] == [(True, 1)] * 4 + [
        (False, REFUSALS_EACH)
    ] * 2
    assert all(handshake.ms > 0 for handshake in found)


def test_the_table_gives_the_cost_of_a_further_attempt() -> None:
    """Handshakes are grouped by answer and attempts. A further attempt costs the difference of the medians, in ms.

    A group of fewer than ten handshakes is left out.
    """
    times = {(True, 1): 5.0, (True, 3): 9.0, (False, 8): 19.0}
    found = [Handshake(admitted, attempts, ms) for (admitted, attempts), ms in times.items() for _ in range(10)]
    lines = list(cost_table([*found, Handshake(True, 2, 7.0)]))
    assert [line.split(" | ")[0:3] for line in lines[2:]] == [
        ["| admitted", "1", "10"],
        ["| admitted", "3", "10"],
        ["| 503", "8", "10"],
    ]
    assert [line.split(" | ")[-1] for line in lines[2:]] == [" |", "2.00 ms |", "2.00 ms |"]


async def test_refusals_are_compared_with_one_pool() -> None:
    """A server that is one pool refuses as many callers as the pool. With half of its places it refuses more."""
    shares = []
    for places in (4, 2):
        async with FixedPlaces(places).running() as server:
            found = await measure_refusals(
                [server.url] * 3, places=4, load=1.0, call_s=0.2, warm_up_s=0.2, measured_s=3.0, seed=3
            )
        assert found.failed == found.live == found.pooled == 0
        assert found.callers > 30
        assert found.pool_refused > 0
        shares.append((found.refused - found.pool_refused) / found.callers)
        assert f"{found.callers} callers, {found.refused} refused" in refusals_line(found)
    assert abs(shares[0]) < 0.1 < shares[1]
