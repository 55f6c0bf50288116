"""The systems of all regions with their health and free places, for `GET /v1/regions`.

Every system asks the others for `GET /v1/places` when somebody asks it for the list, at most once in two seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import httpx2

from deployments.serving.ttl_cache import TtlCache
from rejoinder.core.settings.regions import RegionSettings

KEEP_S = 2.0
"""Seconds for which the places of the other regions are reused."""

UNKNOWN: Mapping[str, Any] = {"healthy": False, "hosts": 0, "sessions": 0, "max_sessions": 0, "free": 0}
"""Places of a system that does not answer."""


def places_of(hosts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the places of a whole system.

    The keys are `hosts`, and the sums over its hosts of `sessions`, `max_sessions` and `free`: the number of calls now,
    their limit and the rest.

    Args:
        hosts: For each host that answers, its `sessions` and `max_sessions`.
    """
    hosts = list(hosts)
    free = sum(max(0, host["max_sessions"] - host["sessions"]) for host in hosts)
    sums = {key: sum(host[key] for host in hosts) for key in ("sessions", "max_sessions")}
    return {"hosts": len(hosts), **sums, "free": free}


class RegionDirectory:
    """The systems of all regions."""

    def __init__(self, settings: RegionSettings, places: Callable[[], Awaitable[dict[str, int]]]) -> None:
        """Create the directory.

        Args:
            settings: The regions.
            places: Returns the places of this system, as `places_of` does.
        """
        self._settings = settings
        self._places = places
        self._others = TtlCache(self._ask_others, KEEP_S)

    async def listing(self) -> dict[str, Any]:
        """Return the name of this region, and a list of all regions.

        An entry has `name`, `url`, `healthy` (False: the system did not answer) and the keys of `places_of`. Without
        regions the list is empty.
        """
        own = self._settings.name
        others = await self._others() if self._settings.entries else {}
        here = {"healthy": True, **await self._places()}
        entries = [
            {"name": name, "url": url, **(here if name == own else others[name])}
            for name, url in self._settings.entries.items()
        ]
        return {"region": own, "regions": entries}

    async def _ask_others(self) -> dict[str, Mapping[str, Any]]:
        names = [name for name in self._settings.entries if name != self._settings.name]
        async with httpx2.AsyncClient(timeout=self._settings.poll_timeout_s) as client:
            found = await asyncio.gather(*(self._ask(client, name) for name in names))
        return dict(zip(names, found, strict=True))

    async def _ask(self, client: httpx2.AsyncClient, name: str) -> Mapping[str, Any]:
        try:
            response = await client.get(f"{self._settings.entries[name].rstrip('/')}/places")
            places = response.raise_for_status().json()
            return {"healthy": places["hosts"] > 0, **{key: int(places[key]) for key in UNKNOWN if key != "healthy"}}
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            return UNKNOWN
