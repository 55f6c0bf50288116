"""What the session journal costs a host: CPU time of a host with many calls, with and without the journal.

    python -m benchmarks.journal_cost --sessions 50 --turns 20

Host, sessions and journal actors are real, and two Ray actors keep the snapshots. The engines are fakes in this process
that answer at once. Runs with and without the journal alternate. Printed are the CPU seconds of the process for each
run, their ratio, and the largest lag of the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from prometheus_client import CollectorRegistry

from actors.host import Host
from actors.session import Session
from actors.stages.ports import Stages
from actors.stages.services import Services
from deployments.local.fixed_engines import CertainTurn, FixedLlm, FixedStt, FixedTts
from deployments.local.in_process import InlineVad
from deployments.serving.journal import LogJournal
from deployments.serving.metrics import ConversationMetrics
from deployments.survival.keeping import open_keeper
from deployments.survival.ray_journals import RayJournals
from deployments.vad import load_silero
from rejoinder.core.reply.held_clips import HeldClip, HeldClips
from rejoinder.core.settings.settings import Settings, parse_settings
from rejoinder.core.wire import client

PAUSE_S = 0.4
"""Seconds between two turns of a session. A call has a turn in several seconds, so this exaggerates the cost."""


async def _talk(host: Host, key: str, turns: int) -> None:
    """Hold one conversation of this many turns. They are in text, so that the host does little besides the journal."""
    done = asyncio.Event()

    def take(event: dict[str, Any]) -> None:
        if event["type"] == "response.done":
            done.set()

    async with host.converse(key, take, "rejoinder") as session:
        for number in range(turns):
            done.clear()
            await _ask(session, f"Question number {number}: what is the weather like in the north of the country?")
            await done.wait()
            await asyncio.sleep(PAUSE_S)


async def _ask(session: Session, text: str) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    response = {"output_modalities": ["text"]}
    for event in (
        {"type": "conversation.item.create", "item": item},
        {"type": "response.create", "response": response},
    ):
        await session.submit(client.parse(json.dumps(event)))


async def _run(settings: Settings, sessions: int, turns: int, *, journal: bool) -> tuple[float, float]:
    """Run the calls on a new host. Return the CPU seconds of this process and the largest lag of its loop in ms."""
    clip = HeldClip("", bytes(480))
    metrics = ConversationMetrics(CollectorRegistry())
    stages = Stages(InlineVad(load_silero(settings)), CertainTurn(), stt=FixedStt(), llm=FixedLlm(), tts=FixedTts())
    services = Services.over(
        stages,
        settings=settings,
        phrases=HeldClips(clip, (), ()),
        metrics=metrics,
        journal=LogJournal(),
        clock=time.monotonic,
    )
    store = RayJournals("journal-cost", "bench", settings.journal, metrics)
    keeper = open_keeper(settings, store, metrics, time.monotonic) if journal else None
    host = Host(services, keeper=keeper)
    running = asyncio.create_task(host.run())
    lags: list[float] = []
    watching = asyncio.create_task(_lag(lags))
    await asyncio.sleep(2.0)
    lags.clear()
    began = time.process_time()
    await asyncio.gather(*(_talk(host, f"s{number}", turns) for number in range(sessions)))
    used = time.process_time() - began
    for task in (running, watching):
        task.cancel()
    await asyncio.wait({running, watching})
    return used, max(lags) * 1000


async def _lag(lags: list[float]) -> None:
    while True:
        due = time.monotonic() + 0.02
        await asyncio.sleep(0.02)
        lags.append(time.monotonic() - due)


@contextmanager
def _cluster() -> Iterator[None]:
    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=4)
    try:
        yield
    finally:
        ray.shutdown()


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings = parse_settings({"host": {"max_sessions": options.sessions}})
    run = partial(_run, settings, options.sessions, options.turns)
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with _cluster():
        for _ in range(options.rounds):
            for journal in (False, True):
                found[journal].append(asyncio.run(run(journal=journal)))
                cpu_s, lag_ms = found[journal][-1]
                print(f"journal {'on ' if journal else 'off'}: {cpu_s:.2f} s of CPU, largest lag {lag_ms:.0f} ms")
    off, on = (statistics.median(cpu_s for cpu_s, _ in found[journal]) for journal in (False, True))
    turns = options.sessions * options.turns
    print(f"CPU with the journal / without: {on / off:.2f}; {(on - off) / turns * 1000:.2f} ms of CPU for each turn")


if __name__ == "__main__":
    main()
