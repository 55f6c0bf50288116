"""The nearest of the servers of several regions, by measured round trips."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx2

from loadtest.callers.openai_caller import ServerAddress
from rejoinder.core.resilience.regions import RegionEntry, by_preference

ROUND_TRIPS = 3
"""TCP connections that are opened to each region. Each takes one round trip; the shortest counts."""
ANSWER_S = 3.0
"""Seconds that a server has for them and for one answer. One that is slower counts as not reachable."""


async def find_regions(server: ServerAddress) -> list[RegionEntry]:
    """Ask a server for the systems of all regions, measure the round trip to each, and return them in order.

    The list is empty if the server has no regions or does not answer.
    """
    async with httpx2.AsyncClient(timeout=ANSWER_S) as client:
        try:
            answer = (await client.get(f"{_http(server.url)}/regions")).raise_for_status().json()
            listed = [(str(entry["name"]), str(entry["url"]), _free(entry)) for entry in answer["regions"]]
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            return []
    rtts = await asyncio.gather(*(round_trip(url) for _, url, _ in listed))
    entries = [RegionEntry(name, url, free, rtt_s) for (name, url, free), rtt_s in zip(listed, rtts, strict=True)]
    return by_preference(entries)


def _free(entry: dict[str, Any]) -> int:
    return int(entry["free"]) if entry["healthy"] else 0


async def round_trip(url: str) -> float | None:
    """Return the shortest round trip in seconds to a system; None if it does not answer in time.

    The system must also answer `GET /v1/places`: a load balancer accepts connections without it.

    Args:
        url: Base URL of the system, with http:// or https://.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(ANSWER_S), httpx2.AsyncClient() as client:
            taken = [await _connect_s(parts.hostname or "", port) for _ in range(ROUND_TRIPS)]
            (await client.get(f"{url.rstrip('/')}/places")).raise_for_status()
    except (TimeoutError, OSError, httpx2.HTTPError, ValueError):
        return None
    return min(taken)


async def _connect_s(host: str, port: int) -> float:
    """Open a TCP connection, close it, and return the seconds that opening took."""
    began = time.perf_counter()
    _, writer = await asyncio.open_connection(host, port)
    took = time.perf_counter() - began
    writer.close()
    return took


async def nearest(server: ServerAddress) -> tuple[ServerAddress, list[RegionEntry]]:
    """Return the address with the regions' URLs in the order in which to try them, and the regions.

    If the server has no regions, the address is unchanged and the list is empty.
    """
    entries = await find_regions(server)
    if not entries:
        return server, []
    first, *others = (_websocket(entry.url) for entry in entries)
    return replace(server, url=first, fallbacks=tuple(others)), entries


def _http(url: str) -> str:
    return url.rstrip("/").replace("ws", "http", 1)


def _websocket(url: str) -> str:
    return url.rstrip("/").replace("http", "ws", 1)
