"""Tests that a host which cannot reach a stage refuses calls, and admits them again when it reaches the stage."""

from __future__ import annotations

import asyncio

import pytest

from actors.stages.stage_watch import PROBE_TIMEOUT_S, StageWatch
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.resilience.reachability import PROBE_S
from rejoinder.core.settings.settings import HostSettings, Settings
from rejoinder.core.survival.journal_table import JournalTable
from tests.actors.fakes import CountingMetrics
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual

LOST_S = 5.0


class Stage:
    """A stage that can be probed: it answers, raises `fault`, or hangs."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.hangs = False
        self.probes = 0

    async def ping(self) -> None:
        """Answer the probe."""
        self.probes += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.fault:
            raise self.fault


def _watched(play: Play, stage: Stage) -> None:
    clock = asyncio.get_running_loop().time
    play.watch = StageWatch({"stt": stage.ping}, LOST_S, play.metrics, clock)


@pytest.mark.parametrize("how", ["fails", "hangs", "bug"])
@virtual
async def test_a_host_that_lost_a_stage_refuses_until_it_is_back(how: str) -> None:
    """A host refuses calls from about 5 s after the last sign of life of a stage, with a retry hint that names it.

    Calls in progress continue. It admits calls again two or three seconds after the stage answers again.
    """
    stage, play = Stage(), Play(Settings(host=HostSettings(retry_after_s=7)))
    _watched(play, stage)
    async with play.open() as host:
        with host.seat():
            await asyncio.sleep(30)
            assert host.lost_stages == ()
            stage.hangs = how == "hangs"
            stage.fault = {"fails": BackendError("gone.", stage="stt"), "bug": ZeroDivisionError()}.get(how)
            await asyncio.sleep(LOST_S - 2 * PROBE_S)
            with host.seat():
                assert host.live == 2
            await asyncio.sleep(2 * (PROBE_S + PROBE_TIMEOUT_S) + PROBE_S)
            with pytest.raises(Overloaded, match="cannot reach stt") as refused, host.seat():
                raise AssertionError("a call was admitted that nobody would answer")
            assert (refused.value.retry_after_s, refused.value.resource) == (7, "stt")
            stage.hangs, stage.fault = False, None
            await asyncio.sleep(3 * PROBE_S)
            assert host.live == 1
            with host.seat():
                assert host.live == 2
    assert play.metrics.counts["refused unreachable"] == 1
    kind = "internal" if how == "bug" else "backend"
    assert play.metrics.counts[f"{kind} stt_probe"] >= 3


@virtual
async def test_a_stage_that_answers_calls_is_not_asked() -> None:
    """While requests of calls are answered, no probe is sent."""
    stage = Stage()
    watch = StageWatch({"stt": stage.ping}, LOST_S, CountingMetrics(), asyncio.get_running_loop().time)
    running = asyncio.create_task(watch.run())
    for _ in range(100):
        await asyncio.sleep(PROBE_S / 2)
        watch.answered("stt")
    assert stage.probes == 0
    await asyncio.sleep(10 * PROBE_S)
    assert 8 <= stage.probes <= 10
    running.cancel()
    await asyncio.wait({running})


@virtual
async def test_the_calls_of_a_host_that_lost_a_stage_move() -> None:
    """A host that has lost a stage asks its clients to connect elsewhere, once each, when the turn is over."""
    stage, play = Stage(), Play(table=JournalTable(1_000_000, 120))
    _watched(play, stage)
    async with play.call() as caller:
        await caller.say()
        await asyncio.sleep(LOST_S)
        assert not caller.of("rejoinder.session.move")
        stage.hangs = True
        await asyncio.sleep(3 * LOST_S)
        assert [event["reason"] for event in caller.of("rejoinder.session.move")] == ["stage_unreachable"]
