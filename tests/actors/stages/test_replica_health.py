"""Tests that a silent language model replica is taken out of use, until it answers a probe.

A replica without tokens for 0.7 s is asked for its report. If it is stopped, it does not answer within 0.3 s.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from rejoinder.core.resilience.stream_report import StreamReport
from rejoinder.core.settings.settings import BreakerSettings, HedgingSettings
from tests.actors.fakes import WordyLlm
from tests.actors.stage_play import Play
from tests.actors.stages.test_hedged_llm import Desk
from tests.actors.virtual_time import virtual

BREAKER = BreakerSettings()
# Without a hedging budget only the circuit breaker can start another attempt.
POOR = HedgingSettings(budget=0.0)


async def _both_answer_once(desk: Desk) -> None:
    """Send one request to each of the replicas a and b, so that both have answered."""
    await desk.ask()
    slow, desk.llm.ttft_s = desk.llm.ttft_s, {"b": 0.08}
    await desk.ask()
    desk.llm.ttft_s = slow


@virtual
async def test_a_silent_replica_gets_a_second_attempt_next_to_it() -> None:
    """If a replica sends no token for 0.7 s and no report, another one answers, without a hedging budget."""
    async with Desk(WordyLlm(), POOR, BREAKER).open() as desk:
        await _both_answer_once(desk)
        desk.llm.stopped.add("a")
        words, ttft, _ = await desk.ask()
    assert words == desk.llm.answer
    assert 1.0 < ttft < 0.7 + 0.05 + 0.3 + 0.08 + 0.02
    assert desk.metrics.counts["breaker opened"] == 1


@virtual
async def test_a_replica_that_stops_in_an_answer_is_replaced() -> None:
    """If a replica stops in the middle of an answer, another one continues after the received text. The answer is
    complete in less than 1.5 s.
    """
    async with Desk(WordyLlm(), POOR, BREAKER).open() as desk:
        await _both_answer_once(desk)
        asyncio.get_running_loop().call_later(0.15, desk.llm.stopped.add, "a")
        began = asyncio.get_running_loop().time()
        words, _, _ = await desk.ask()
        took = asyncio.get_running_loop().time() - began
    assert words == desk.llm.answer
    assert desk.llm.requests[-1][0] == "b"
    assert desk.llm.requests[-1][1].prefix
    assert took < 0.15 + 1.3 + 16 * 0.02


@virtual
async def test_a_silent_replica_is_probed_before_it_serves_again() -> None:
    """While a replica is out of use, requests go straight to another one. A successful probe puts the replica back into
    use.
    """
    async with Desk(WordyLlm(), POOR, BREAKER).open() as desk:
        await _both_answer_once(desk)
        desk.llm.stopped.add("a")
        await desk.ask()
        asked = len(desk.llm.requests)
        for _ in range(3):
            _, ttft, _ = await desk.ask()
            assert ttft == pytest.approx(0.08, abs=0.001)
        assert {replica for replica, _ in desk.llm.requests[asked:]} == {"b"}
        await asyncio.sleep(3)
        assert desk.llm.probes, "it was never tried"
        assert desk.metrics.counts["breaker closed"] == 0
        desk.llm.stopped.clear()
        await asyncio.sleep(10)
        assert desk.metrics.counts["breaker closed"] == 1
        await desk.ask()
    assert desk.llm.requests[-1][0] == "a"


@virtual
async def test_the_only_replica_is_not_abandoned() -> None:
    """If there is only one replica, it stays in use, even if its first token takes 3 s."""
    async with Desk(WordyLlm(ttft_s={"a": 3.0}), POOR, BREAKER).open() as desk:
        words, ttft, _ = await desk.ask()
    assert words == desk.llm.answer
    assert ttft == pytest.approx(3.0)
    assert desk.metrics.counts["breaker opened"] == 0


@virtual
async def test_one_slow_request_opens_no_circuit() -> None:
    """A replica that is slow for one request and answers the question for its report stays in use."""
    async with Desk(WordyLlm(), POOR, BREAKER).open() as desk:
        await _both_answer_once(desk)
        desk.llm.ttft_s = {"a": 3.0, "b": 0.08}
        desk.llm.reports["a"] = StreamReport(waiting=1, silent_s=0.8)
        _, ttft, _ = await desk.ask()
    assert ttft == pytest.approx(3.0, abs=0.01)
    assert set(desk.llm.questions) == {"a"}
    assert desk.metrics.counts["breaker opened"] == 0


@virtual
async def test_a_replica_that_reports_several_silent_streams_is_taken_out() -> None:
    """If three streams of other hosts wait in a replica without a token, one waiting stream of this host suffices."""
    async with Desk(WordyLlm(), POOR, BREAKER).open() as desk:
        await _both_answer_once(desk)
        desk.llm.ttft_s = {"a": 30.0, "b": 0.08}
        desk.llm.reports["a"] = StreamReport(waiting=3, silent_s=0.8)
        _, ttft, _ = await desk.ask()
    assert ttft < 0.7 + 0.05 + 0.08 + 0.02
    assert desk.metrics.counts["breaker opened"] == 1


@virtual
async def test_a_late_stream_is_helped_by_the_budget_before_the_report() -> None:
    """With a token in the hedging budget, a stream that stops in an answer is continued elsewhere after 0.7 s.

    The further request costs the token, so the next stream that stops has to wait.
    """
    loop, took = asyncio.get_running_loop(), []
    async with Desk(WordyLlm(), HedgingSettings(budget=0.4), BREAKER).open() as desk:
        await _both_answer_once(desk)
        for _ in range(2):
            loop.call_later(0.15, desk.llm.paused.add, "a")
            loop.call_later(3.0, desk.llm.paused.clear)
            began = loop.time()
            assert (await desk.ask())[0] == desk.llm.answer
            took.append(loop.time() - began)
            await asyncio.sleep(3.0)
    assert 0.85 < took[0] < 1.4
    assert took[1] > 3.0
    assert desk.metrics.counts["breaker opened"] == 0


@virtual
async def test_a_replica_that_serves_others_is_not_silent() -> None:
    """A replica that is slow for one request stays in use while it sends tokens for another one."""
    llm = WordyLlm(gap_s=0.3)
    async with Desk(llm, POOR, BREAKER).open() as desk:
        await _both_answer_once(desk)
        talking = asyncio.create_task(desk.ask())
        await asyncio.sleep(0.2)
        llm.ttft_s = {"a": 2.5, "b": 0.08}
        _, ttft, _ = await desk.ask()
        talking.cancel()
        await asyncio.wait({talking})
    assert ttft == pytest.approx(2.5, abs=0.01)
    assert desk.metrics.counts["breaker opened"] == 0


@virtual
async def test_a_caller_is_not_left_in_silence_when_a_replica_stops() -> None:
    """If a replica stops during a reply, the caller still gets audio at least every 1.5 s."""
    play = Play(llm=WordyLlm(gap_s=0.1))
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.say(1.0)
        await caller.hush(6)
        play.llm.ttft_s = {"b": 0.08, "a": 0.08}
        await caller.say(1.0)
        await caller.hush(6)
        asyncio.get_running_loop().call_later(1.0 + 0.5, play.llm.stopped.add, "b")
        done = await caller.say(1.0)
    assert done["response"]["status"] == "completed"
    times = [at for at, event in caller.events if event["type"] == "response.output_audio.delta"]
    started = caller.at("input_audio_buffer.speech_stopped", 3)
    third = [at for at in times if at >= started]
    assert third[0] - started < 1.5
    assert max(later - earlier for earlier, later in pairwise(third)) < 1.5
