"""Tests of the order in which a client tries the systems of several regions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.regions import RegionEntry, by_preference


def entry(name: str, rtt_ms: float | None, free: int = 10) -> RegionEntry:
    """Return an entry with this round trip in milliseconds."""
    return RegionEntry(name, f"http://{name}/v1", free, None if rtt_ms is None else rtt_ms / 1000)


def names(*entries: RegionEntry) -> list[str]:
    """Return the names of the entries in the order of preference."""
    return [found.name for found in by_preference(entries)]


def test_the_nearest_region_comes_first() -> None:
    """Of regions with free places, the one with the shortest round trip is tried first."""
    assert names(entry("far", 200), entry("near", 10), entry("middle", 80)) == ["near", "middle", "far"]


def test_a_full_region_comes_after_those_with_places() -> None:
    """A full region is tried only if no other takes the call, and before those that did not answer."""
    assert names(entry("near", 10, free=0), entry("dead", None), entry("far", 200)) == ["far", "near", "dead"]


@given(st.lists(st.builds(entry, st.text("abc", max_size=3), st.none() | st.floats(0, 1000), st.integers(-1, 3))))
def test_no_region_is_lost(entries: list[RegionEntry]) -> None:
    """Every entry stays in the list once, and none with places follows one without, among those that answer."""
    ordered = by_preference(entries)
    assert sorted(map(repr, ordered)) == sorted(map(repr, entries))
    ranks = [(found.rtt_s is None, found.free <= 0) for found in ordered]
    assert ranks == sorted(ranks)
