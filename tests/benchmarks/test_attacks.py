"""Tests of the benchmark of attacks, against a host with fake stages in this process."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.attacks import ATTACKS, Attack, Latencies, attack, measure, percentile, row
from tests.actors.stage_play import Play
from tests.loadtest.callers.server import listening


async def test_turns_and_echoes_are_measured() -> None:
    """Each caller takes turns whose first audio is timed, and gets an answer to each of its events."""
    async with listening(Play()) as (url, _):
        found = await measure(url, callers=2, seconds=3.0)
    assert len(found.turns) >= 2
    assert len(found.echoes) > 20
    assert min(found.turns) > 0
    assert found.lost == 0


@pytest.mark.parametrize("name", ["items", "tools", "responses", "message", "instructions"])
async def test_an_attacker_goes_on_until_its_time_is_over(name: str) -> None:
    """An attack ends after its time, whether the host has refused it or not, and the host has then no call."""
    async with listening(Play()) as (url, host):
        await attack(url, name, 1.5)
        for _ in range(200):
            if not host.live:
                break
            await asyncio.sleep(0.05)
        assert host.live == 0


def test_a_row_compares_with_the_calm() -> None:
    """A row has the percentiles and their ratios to those without an attack."""
    calm = Latencies((100.0, 110.0), (1.0, 2.0))
    assert (
        row("pings", Latencies((121.0, 50.0), (3.0,), lost=1), calm) == "| pings | 2 | 1 | 121.0 | 1.10 | 3.0 | 1.50 |"
    )
    assert percentile([float(value) for value in range(1, 101)], 0.95) == 95
    assert {one.connections for one in ATTACKS.values()} == {1, 200}
    assert isinstance(ATTACKS["pings"], Attack)
