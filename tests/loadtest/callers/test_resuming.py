"""Our clients over connections that break: the conversation continues on another host, and no word is lost or doubled.

Two hosts with fake stages share a journal. A relay in front of them breaks the connections.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtest.callers.openai_caller import HeldCall, ServerAddress, talk
from loadtest.callers.scripted_caller import ScriptedBehavior, ScriptedLine
from loadtest.generator.assignment import WorkerAssignment
from loadtest.generator.worker import Worker
from loadtest.scenario.clips import write_wave
from loadtest.scenario.scenario import CallerBehavior, Scenario
from loadtest.scenario.schedule import Call
from rejoinder.core.settings.settings import Settings
from rejoinder.core.survival.journal_table import JournalTable
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.loadtest.callers.scene import clip, silence, tone
from tests.loadtest.callers.server import Relay, listening, relayed

# These conversations run in real time, so they need the machine to themselves.
pytestmark = pytest.mark.timed

ANSWER = "One two three four five six seven eight."


@asynccontextmanager
async def two_hosts(*heard: str) -> AsyncIterator[tuple[str, Relay, list[Play]]]:
    """Run two hosts behind a relay. Yield (URL, relay, the hosts' stages). `heard` are the transcripts, in order."""
    journal = Settings().journal
    table, transcripts = JournalTable(journal.node_bytes, journal.keep_s), deque(heard)
    plays = [Play(stt=ScriptedStt(transcripts), llm=WordyLlm(ANSWER), table=table) for _ in range(2)]
    async with AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(listening(play)))[0] for play in plays]
        url, relay = await stack.enter_async_context(relayed(*urls))
        yield url, relay, plays


async def converse(url: str, relay: Relay, cut_at: list[float]) -> HeldCall:
    """Hold a conversation of two lines. The connection breaks at these times, in seconds after its start."""
    lines = [ScriptedLine(clip("a.wav")), ScriptedLine(clip("b.wav"))]
    loop = asyncio.get_running_loop()
    timers = [loop.call_later(at, relay.cut) for at in cut_at]
    call = await talk(ServerAddress(url), lines, ScriptedBehavior(timeout_s=8), lambda _: None)
    for timer in timers:
        timer.cancel()
    return call


@pytest.mark.parametrize("cut_at", [[0.3], [1.0], [1.7], [2.6], [1.0, 2.6], [2.2, 2.4]])
async def test_talk_continues_after_a_lost_connection(cut_at: list[float]) -> None:
    """Before, in and after the caller's speech, and in the reply: both lines are answered whole, each word once."""
    async with two_hosts("What is first?", "What is second?") as (url, relay, _):
        call = await converse(url, relay, cut_at)
    assert [record.outcome for record in call.dialogue.records()] == ["answered", "answered"], call.dialogue.faults
    assert [record.heard for record in call.dialogue.records()] == ["What is first?", "What is second?"]
    said = Counter(" ".join(reply.transcript for reply in call.dialogue.replies).split())
    assert said == Counter((ANSWER + " " + ANSWER).split())


async def test_talk_leaves_a_silent_server() -> None:
    """The server falls silent in the reply and keeps the connection open: the rest comes from the next host.

    It is noticed after about 3 s.
    """
    async with two_hosts("What is first?", "What is second?") as (url, relay, plays):
        asyncio.get_running_loop().call_later(2.6, relay.silence)
        call = await converse(url, relay, [])
    assert [record.outcome for record in call.dialogue.records()] == ["answered", "answered"], call.dialogue.faults
    assert plays[1].llm.requests
    said = Counter(" ".join(reply.transcript for reply in call.dialogue.replies).split())
    assert said == Counter((ANSWER + " " + ANSWER).split())


async def test_a_conversation_that_no_journal_has_ends_with_the_reason() -> None:
    """If the host has no journal, a lost connection ends the conversation as before."""
    async with listening(Play(stt=ScriptedStt(deque(["Hello."])))) as (direct, _), relayed(direct) as (url, relay):
        call = await converse(url, relay, [1.0])
    assert [record.outcome for record in call.dialogue.records()] == ["unanswered", "unanswered"]
    assert any("the connection was lost" in fault for fault in call.dialogue.faults)


async def hold(url: str, relay: Relay, clip_path: str, *, resume: bool) -> Counter[str]:
    """Make four calls of the load generator, whose connections break, and later fall silent. Return the last report."""
    scenario = Scenario(
        url, 4, 12, clips=(clip_path,), behavior=CallerBehavior(think_s=0.3), resume=resume, drain_s=15, warm_up_s=0
    )
    calls = tuple(Call(number, at_s=0.1, ends_s=12.0, region="local", slot=number, seed=number) for number in range(4))
    assignment = WorkerAssignment(scenario, calls=calls, measure_from_s=0.0, measure_to_s=12.0, start_at=0.0)
    reports: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    timers = [loop.call_later(2.5, relay.cut), loop.call_later(4.5, relay.silence)]
    await Worker(assignment, time.monotonic(), reports.append).run()
    for timer in timers:
        timer.cancel()
    traffic = reports[-1]["traffic"]
    return Counter(reports[-1]["counts"], unsent=traffic["scheduled"] - traffic["sent"])


async def test_calls_of_a_load_run_continue(tmp_path: Path) -> None:
    """Each of four calls loses its connection, then its server falls silent; every time it continues.

    No call is dropped, and every turn is answered.
    """
    write_wave(tmp_path / "clip.wav", tone(0.8) + silence(0.1))
    async with two_hosts(*["What?"] * 200) as (url, relay, _):
        counts = await hold(url, relay, str(tmp_path / "clip.wav"), resume=True)
    assert (counts["opened"], counts["lost"], counts["resumed"], counts["dropped"]) == (4, 8, 8, 0)
    assert counts["answered"] == counts["turns"] > 4, counts
    assert counts["unsent"] == 0


async def test_calls_that_shall_not_resume_are_dropped(tmp_path: Path) -> None:
    """With `resume=false` a lost connection ends the call, so that a run measures what other clients experience."""
    write_wave(tmp_path / "clip.wav", tone(0.8) + silence(0.1))
    async with two_hosts(*["What?"] * 200) as (url, relay, _):
        counts = await hold(url, relay, str(tmp_path / "clip.wav"), resume=False)
    assert (counts["lost"], counts["resumed"], counts["dropped"]) == (4, 0, 4)
