"""The nearest of the servers of several regions, by measured round trips."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx2

from loadtest.callers.openai_caller import ServerAddress
from rejoinder.core.resilience.regions import RegionEntry, by_preference

ROUND_TRIPS = 3
"""Round trips that are measured to each region. The first one also opens the connection and does not count."""
ANSWER_S = 3.0
"""Seconds that a server has to answer all of them. One that is slower counts as not reachable."""


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
    """Return the shortest round trip in seconds to a system's `GET /v1/places`; None if it does not answer in time.

    Args:
        url: Base URL of the system, with http:// or https://.
    """
    best = None
    try:
        async with asyncio.timeout(ANSWER_S), httpx2.AsyncClient() as client:
            for number in range(1 + ROUND_TRIPS):
                began = time.perf_counter()
                (await client.get(f"{url.rstrip('/')}/places")).raise_for_status()
                took = time.perf_counter() - began
                if number:
                    best = took if best is None else min(best, took)
    except (TimeoutError, httpx2.HTTPError, ValueError):
        return None
    return best


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
