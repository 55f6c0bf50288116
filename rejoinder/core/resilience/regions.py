"""The order in which a client tries the systems of several regions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RegionEntry:
    """What a client knows about the system of one region.

    Attributes:
        name: Name of the region.
        url: Base URL of the system.
        free: Number of calls that it could still take, as far as the system that was asked knows.
        rtt_s: Round-trip time in seconds that the client measured; None if the system did not answer it.
    """

    name: str
    url: str
    free: int
    rtt_s: float | None


def by_preference(entries: Iterable[RegionEntry]) -> list[RegionEntry]:
    """Return the entries in the order in which a client should try them.

    First those with free places, then the full ones (a place may become free), last those that did not answer the
    client: each group from the shortest round trip to the longest.
    """

    def rank(entry: RegionEntry) -> tuple[bool, bool, float]:
        return entry.rtt_s is None, entry.free <= 0, math.inf if entry.rtt_s is None else entry.rtt_s

    return sorted(entries, key=rank)
