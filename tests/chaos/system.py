"""The system in which faults are made: `rejoinder serve` with emulated engines, and its processes by their roles."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx2
import psutil

from tests.chaos.live_calls import LiveCall, Newcomers, ask_and_resume
from tests.system.harness.growing import emulated
from tests.system.harness.served import Served, metric
from tests.system.harness.surviving import SurvivingCaller
from tests.system.harness.watching import wait_until

CALLS = 4
"""Live calls during a fault."""
WHOLE_S = 60.0
"""Seconds within which replicas that died are replaced."""
START_S = 60.0
"""Seconds within which every live call must have had an answer before the fault."""
NAMES = {
    "haproxy": "haproxy",
    "gcs": "gcs_server",
    "raylet": "raylet",
    "controller": "ray::ServeController",
}
"""Names of processes of the platform, by role. Roles of Rejoinder are found through its census of replicas."""


def settings(hosts: int, replicas: int) -> dict[str, Any]:
    """Return the settings of a system with so many hosts, and so many replicas of speech to text, model and voice."""
    many = {"min_replicas": replicas, "max_replicas": replicas}
    few = {"num_cpus": 0.05}
    return {
        "host": {"autoscaling": {"min_replicas": hosts, "max_replicas": hosts}, "resources": few},
        "admission": {"enabled": False},
        "turn_detector": {"resources": few},
        "stt": {**emulated(60, 16), "autoscaling": many, "resources": few},
        "llm": {**emulated(120, 16), "autoscaling": many, "resources": few},
        "tts": {**emulated(80, 16), "autoscaling": many, "resources": few},
        # A filler would be taken for the answer that the silence is measured to.
        "conversation": {"filler_after_ms": 0, "max_silence_s": 0},
    }


@dataclass
class Observation:
    """What a fault did.

    Attributes:
        calls: Number of live calls.
        cut: Live calls whose connection was lost.
        sound_s: Longest time from a question, or the fault, to the next sound in a live call that was not cut.
        silence_s: Longest silence of a live call that was not cut, while its caller waited.
        unanswered: Turns of live calls that were not cut, without a complete answer.
        broken: Breaks of the calls that resume by themselves. There are as many of them as live calls.
        back_s: Longest time from a break to `rejoinder.session.resumed`; None if a call did not come back.
        recovery_s: Seconds until new calls were answered again; 0 if all were, None if they never were.
        reasons: Why new calls were not answered, with their number.
        health: Answers of `/healthz` that were not 200 and "ok", in the order of their first appearance.
    """

    calls: int
    cut: int
    sound_s: float
    silence_s: float
    unanswered: int
    recovery_s: float | None
    broken: int = 0
    back_s: float | None = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    health: list[str] = field(default_factory=list)


class System:
    """A running system, and how to disturb it."""

    def __init__(self, served: Served, question: bytes, hosts: int, replicas: int) -> None:
        """Remember the system that `settings(hosts, replicas)` describes, and the speech of its callers."""
        self.served = served
        self._question = question
        self._hosts = hosts
        self._replicas = replicas

    def processes(self, role: str) -> list[psutil.Process]:
        """Return the processes with a role: one of NAMES, "host", or a stage. The busiest host comes first."""
        if role in NAMES:
            family = psutil.Process(self.served.process.pid).children(recursive=True)
            found = [process for process in family if _name(process).startswith(NAMES[role])]
            return sorted(found, key=lambda process: -process.create_time())  # the newest HAProxy has the new calls
        replicas = self.served.replicas(role)
        if role == "host":
            replicas.sort(key=lambda replica: -metric(replica["target"], "rejoinder_sessions_live"))
        return [psutil.Process(int(replica["pid"])) for replica in replicas]

    def await_whole(self) -> None:
        """Wait until every host and stage has all its replicas, and new calls are accepted."""
        wanted = {"host": self._hosts, **dict.fromkeys(("stt", "llm", "tts"), self._replicas)}
        wait_until(lambda: self._counts() == wanted, WHOLE_S, f"{wanted}")

    def _counts(self) -> dict[str, int]:
        stages = Counter(replica["stage"] for replica in self.served.census())
        return {stage: stages[stage] for stage in ("host", "stt", "llm", "tts")}

    async def observe(
        self, fault: Callable[[], object], seconds: float, undo: tuple[float, Callable[[], object]] | None = None
    ) -> Observation:
        """Hold CALLS calls and let new ones arrive, make a fault, and return what it did.

        Args:
            fault: Makes the fault. It is called in a thread.
            seconds: Seconds of observation after the fault.
            undo: Seconds after the fault, and what is called then.
        """
        resuming = [SurvivingCaller(self.served.url) for _ in range(CALLS)]
        async with self._calling(resuming) as (calls, newcomers, health):
            began = time.monotonic()
            await asyncio.to_thread(fault)
            since = time.monotonic()
            if undo:
                await asyncio.sleep(undo[0] - (time.monotonic() - began))
                await asyncio.to_thread(undo[1])
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
            now = time.monotonic()
        lost = any(caller.broke_at for caller in resuming)
        backs_s = [back_s for caller in resuming for back_s in caller.back_s]
        kept = [call for call in calls if call.cut_at is None or call.cut_at >= now]
        return Observation(
            calls=len(calls),
            cut=len(calls) - len(kept),
            sound_s=max((call.sound_s(since, now) for call in kept), default=0.0),
            silence_s=max((call.silence_s(since, now) for call in kept), default=0.0),
            unanswered=sum(call.failed for call in kept),
            recovery_s=newcomers.recovery_s(since),
            broken=len(backs_s) + lost,
            back_s=None if lost else max(backs_s, default=0.0),
            reasons=newcomers.reasons,
            health=health,
        )

    @asynccontextmanager
    async def _calling(
        self, resuming: list[SurvivingCaller]
    ) -> AsyncIterator[tuple[list[LiveCall], Newcomers, list[str]]]:
        """Run the live calls, the new ones and the questions for the health until the block ends."""
        calls = [LiveCall(self.served.url, self._question) for _ in range(CALLS)]
        newcomers, health = Newcomers(self.served.url), list[str]()
        running = [asyncio.create_task(call.run()) for call in calls]
        running += [asyncio.create_task(ask_and_resume(caller)) for caller in resuming]
        try:
            async with asyncio.timeout(START_S):
                while not all(call.completed for call in calls) or not all(one.of("response.done") for one in resuming):  # noqa: ASYNC110  # three events would be no simpler
                    await asyncio.sleep(0.1)
            running += [asyncio.create_task(newcomers.run()), asyncio.create_task(self._ask_health(health))]
            await asyncio.sleep(1)
            yield calls, newcomers, health
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    async def _ask_health(self, answers: list[str]) -> None:
        """Append every answer of `/healthz` to `answers` that is not "ok", once each."""
        async with httpx2.AsyncClient(timeout=2) as client:
            while True:
                said = ""
                try:
                    answer = await client.get(f"{self.served.url}/healthz")
                    if answer.status_code != 200:
                        with suppress(ValueError):
                            said = str(answer.json()["status"])
                        said = f"{answer.status_code} {said}".strip()
                except httpx2.HTTPError as error:
                    said = type(error).__name__
                if said and said not in answers:
                    answers.append(said)
                await asyncio.sleep(0.25)


def _name(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):
        command = process.cmdline()
        return command[0].rsplit("/", 1)[-1] if command else process.name()
    return ""
