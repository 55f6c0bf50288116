"""Two hours of calls in virtual time, some with faults: the host's memory, files, threads and tasks do not grow.

The host and its sessions are real, the stages are fakes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from actors.host import Host
from rejoinder.core.errors import BackendError
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

ROUNDS = 12
ROUND_S = 600.0
CALLERS = 3
# Rounds until caches, pools and code that is used for the first time no longer grow.
WARM_UP = 3
# Growth from the end of the warm-up that a leak of one session per round would exceed: each holds 1.3 MB of audio.
GROWTH_BYTES = 8 * 1024 * 1024
GROWTH_OBJECTS = 2_000


@dataclass(frozen=True)
class Sample:
    """What the process holds while no call is in progress."""

    rss: int
    objects: int
    files: int
    threads: int
    tasks: int


def _sample() -> Sample:
    gc.collect()
    process = psutil.Process()
    return Sample(
        rss=process.memory_info().rss,
        objects=len(gc.get_objects()),
        files=process.num_fds(),
        threads=process.num_threads(),
        tasks=len(asyncio.all_tasks()),
    )


async def _call(host: Host, chance: random.Random, name: str) -> int:
    """Hold a call of one to five turns, some interrupted, and end it at any moment. Return the number of answers."""
    caller = Caller()
    with host.seat():
        async with host.converse(name, caller.take, "rejoinder") as session:
            caller.session = session
            for turn in range(1, chance.randint(1, 5) + 1):
                await caller.speak(chance.uniform(0.4, 4.0))
                await caller.listen("response.output_audio.delta")
                if chance.random() < 0.3:
                    await caller.speak(1.5)  # barge-in
                if chance.random() < 0.2:
                    break  # hang up
                while len(caller.of("response.done")) < turn:
                    await caller.hush(0.5)
            caller.silent = True
    return len(caller.of("response.done"))


async def _disturb(play: Play, chance: random.Random) -> None:
    """Make faults of the stages, one after the other, until cancelled."""
    while True:
        await asyncio.sleep(chance.uniform(20, 60))
        fault = chance.choice(("stt", "llm", "tts", "vad"))
        if fault == "stt":
            play.stt.failures += 2
        elif fault == "tts":
            play.tts.failures += 1
        elif fault == "llm":
            play.llm.dead.add("a")
            await asyncio.sleep(5)
            play.llm.dead.clear()
        else:
            play.vad.fault = BackendError("gone.", stage="vad")
            await asyncio.sleep(2)
            play.vad.fault = None


async def _round(host: Host, chance: random.Random, number: int) -> tuple[int, int]:
    """Hold calls for ROUND_S, CALLERS at a time. Return the numbers of calls and of answers."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + ROUND_S
    answers: list[int] = []

    async def calling(place: int) -> None:
        while loop.time() < ends:
            answers.append(await _call(host, chance, f"r{number}-{place}-{len(answers)}"))

    async with asyncio.TaskGroup() as group:
        for place in range(CALLERS):
            group.create_task(calling(place))
    return len(answers), sum(answers)


def _forget(play: Play) -> None:
    """Repair the fake stages, and delete what they remember of the requests."""
    play.llm.dead.clear()
    play.vad.fault = None
    for requests in (play.llm.requests, play.llm.prefills, play.llm.probes, play.llm.questions):
        requests.clear()
    for jobs in (play.stt.jobs, play.stt.partials, play.stt.avoided, play.tts.texts, play.turn.received):
        jobs.clear()
    play.metrics.turns.clear()
    play.metrics.stops_s.clear()


@pytest.fixture
def _no_log() -> Iterator[None]:
    """Switch the log off: pytest keeps every record, with the exceptions in it and all that their frames refer to."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_no_log")
@pytest.mark.chaos
@pytest.mark.timeout(1200)
@virtual
async def test_two_hours_of_calls_leave_nothing() -> None:
    """After two hours of calls with faults, no more tasks, threads and files are open than after the warm-up.

    The number of objects and the memory have hardly grown.
    """
    chance, play, samples = random.Random(7), Play(), list[Sample]()
    async with play.open() as host:
        for number in range(ROUNDS):
            faults = asyncio.create_task(_disturb(play, chance))
            calls, answers = await _round(host, chance, number)
            faults.cancel()
            await asyncio.wait({faults})
            assert calls > ROUND_S * CALLERS / 60
            assert answers > calls
            _forget(play)
            # Retries of requests and health probes of replicas may still run. They end within a minute of virtual time,
            # and then the sample counts only what is left for good.
            await asyncio.sleep(60)
            assert host.live == 0
            samples.append(_sample())
            print(number, calls, answers, samples[-1], flush=True)
    first, last = samples[WARM_UP], samples[-1]
    assert (last.files, last.threads, last.tasks) == (first.files, first.threads, first.tasks)
    assert last.objects < first.objects + GROWTH_OBJECTS
    assert last.rss < first.rss + GROWTH_BYTES
