"""Tests of the list of regions: free places of this system and of the others, also if one does not answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cluster.environment import free_port
from deployments.serving.regions import RegionDirectory, places_of
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.regions import RegionSettings
from rejoinder.core.settings.settings import parse_settings

OWN = {"hosts": 1, "sessions": 1, "max_sessions": 5, "free": 4}


async def own() -> dict[str, int]:
    return OWN


@asynccontextmanager
async def answering(body: str, wait_s: float = 0.0, asked: list[str] | None = None) -> AsyncIterator[str]:
    """Run a server that answers every request with this JSON. Yield its base URL; `asked` gets the request lines."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(head.split(b"\r\n")[0].decode())
        await asyncio.sleep(wait_s)
        length = f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{length}\r\n{body}".encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def listed(other: str) -> dict[str, Any]:
    """Return the entry of another region whose base URL is `other`."""
    settings = RegionSettings(name="here", entries={"here": "http://h/v1", "there": other}, poll_timeout_s=0.3)
    listing = await RegionDirectory(settings, own).listing()
    assert listing["region"] == "here"
    assert listing["regions"][0] == {"name": "here", "url": "http://h/v1", "healthy": True, **OWN}
    there: dict[str, Any] = listing["regions"][1]
    return there


def test_the_places_of_hosts_are_summed() -> None:
    """A host above its limit has no free places, and takes none from the others."""
    hosts = [{"sessions": 3, "max_sessions": 10}, {"sessions": 12, "max_sessions": 10}]
    assert places_of(hosts) == {"hosts": 2, "sessions": 15, "max_sessions": 20, "free": 7}
    assert places_of([]) == {"hosts": 0, "sessions": 0, "max_sessions": 0, "free": 0}


async def test_another_region_says_its_places() -> None:
    """The entry of another region has the places that its system reports, from GET /v1/places."""
    places, asked = {"hosts": 2, "sessions": 1, "max_sessions": 8, "free": 7}, list[str]()
    async with answering(json.dumps(places), asked=asked) as url:
        assert await listed(url) == {"name": "there", "url": url, "healthy": True, **places}
    assert asked == ["GET /v1/places HTTP/1.1"]


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"hosts": "x"}', '{"hosts": 0}'])
async def test_a_strange_answer_is_no_place(body: str) -> None:
    """A region whose answer is not one of Rejoinder is listed as not healthy."""
    async with answering(body) as url:
        assert (await listed(url))["healthy"] is False


async def test_a_region_that_is_late_or_gone_is_not_healthy() -> None:
    """Nobody waits longer than the timeout for a region."""
    began = asyncio.get_running_loop().time()
    async with answering(json.dumps(OWN), wait_s=5) as url:
        assert (await listed(url))["healthy"] is False
    assert (await listed(f"http://127.0.0.1:{free_port()}/v1"))["healthy"] is False
    assert asyncio.get_running_loop().time() - began < 3


async def test_many_clients_ask_the_others_once() -> None:
    """Within two seconds the other regions are asked once, however many clients ask."""
    asked: list[str] = []
    async with answering(json.dumps(OWN), asked=asked) as url:
        directory = RegionDirectory(RegionSettings(name="a", entries={"a": "http://a/v1", "b": url}), own)
        await asyncio.gather(*(directory.listing() for _ in range(20)))
    assert len(asked) == 1


async def test_without_regions_the_list_is_empty() -> None:
    """A system without regions lists none."""
    assert await RegionDirectory(RegionSettings(), own).listing() == {"region": "", "regions": []}


@pytest.mark.parametrize(
    "regions",
    [
        {"name": "eu", "entries": {"us": "http://us/v1"}},
        {"name": "EU West", "entries": {}},
        {"name": "eu", "entries": {"eu": "us.example.com"}},
        {"name": "eu", "entries": {"eu": ""}},
    ],
)
def test_wrong_regions_are_refused(regions: dict[str, Any]) -> None:
    """A system must be in its own list, names are labels, and addresses have a scheme."""
    with pytest.raises(ConfigError) as refused:
        parse_settings({"regions": regions})
    assert refused.value.field.startswith("args.regions")
