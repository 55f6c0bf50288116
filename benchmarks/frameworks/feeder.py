"""Audio to the contenders in real time, and the instants at which they begin to sound.

One loop for all sessions: four instants in every 20 ms, a quarter of the sessions at each. Every session begins its
first cycle at its own seeded moment, so that turns end when they end. Lateness is measured from the schedule; so is
every answer.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from benchmarks.frameworks.contender import FRAME_S
from benchmarks.frameworks.streams import CYCLE_FRAMES, CYCLE_S
from benchmarks.frameworks.timing import Answers, EngineTimes, TimedEdge, judge, together

PHASES = 4
SEED = 20_261_125


class Link(Protocol):
    """A connection that carries some sessions; `sounded` has the instants at which a reply of each began."""

    sounded: list[list[float]]

    def send(self, frames: Sequence[tuple[int, int, int]]) -> None:
        """(session of this link, stream, frame of its cycle) of all that is due at one instant."""
        ...


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """When each session speaks. `starts`: frames after the beginning at which its first cycle begins."""

    starts: tuple[int, ...]
    cycles: int
    streams: int

    def stream(self, session: int) -> int:
        return session % self.streams

    def due(self, session: int, begin: float) -> float:
        """The instant of a session's first frame."""
        return begin + self.starts[session] * FRAME_S + (session % PHASES) * FRAME_S / PHASES

    @property
    def frames(self) -> int:
        """Until the last session has had all its cycles."""
        return max(self.starts) + self.cycles * CYCLE_FRAMES


def plan(sessions: int, cycles: int, streams: int) -> FeedPlan:
    """The same for every contender with so many sessions."""
    draw = random.Random(SEED)
    return FeedPlan(tuple(draw.randrange(CYCLE_FRAMES) for _ in range(sessions)), cycles, streams)


@dataclass(slots=True)
class Feeder:
    """`feed` once. `links` carry the sessions in order, `per_link` each."""

    links: Sequence[Link]
    per_link: int
    plan: FeedPlan
    warm_up_s: float = 2 * CYCLE_S
    late_s: array[float] = field(default_factory=lambda: array("d"))
    begin: float = 0.0

    @property
    def counted_from(self) -> float:
        """When every session has begun its second cycle: what came before warmed up."""
        return self.begin + self.warm_up_s

    async def feed(self) -> None:
        """Send every frame at its instant; returns when the last one has gone. Not restartable."""
        gc.collect()
        gc.disable()
        try:
            self.begin = time.monotonic() + 0.1
            for tick in range(self.plan.frames * PHASES):
                due = self.begin + tick * FRAME_S / PHASES
                while (left := due - time.monotonic()) > 0:  # noqa: ASYNC110  # a timer may fire early
                    await asyncio.sleep(left)
                self._send(*divmod(tick, PHASES))
                self.late_s.append(time.monotonic() - due)
        finally:
            gc.enable()

    def _send(self, frame: int, phase: int) -> None:
        for number, link in enumerate(self.links):
            first = number * self.per_link
            due = []
            for session in range(first, first + self.per_link):
                at = frame - self.plan.starts[session]
                if session % PHASES == phase and 0 <= at < self.plan.cycles * CYCLE_FRAMES:
                    due.append((session - first, self.plan.stream(session), at % CYCLE_FRAMES))
            if due:
                link.send(due)

    def late_p99_ms(self) -> float:
        """Of the counted part."""
        counted = np.array(self.late_s)[round(self.warm_up_s / FRAME_S) * PHASES :]
        return float(np.percentile(counted, 99)) * 1000

    def answers(self, edges: Sequence[TimedEdge], engines: EngineTimes) -> Answers:
        """Every session's turns, judged; `edges`: one of each stream."""
        found = []
        for session in range(len(self.plan.starts)):
            sounded = sorted(self.links[session // self.per_link].sounded[session % self.per_link])
            first = self.plan.due(session, self.begin)
            ideal_s = edges[self.plan.stream(session)].ideal_ms(engines) / 1000
            ideal = [first + cycle * CYCLE_S + ideal_s for cycle in range(self.plan.cycles)]
            patience = CYCLE_S - ideal_s
            found.append(judge(ideal, sounded, patience, self.counted_from))
        return together(found)
