"""Feed audio to a contender in real time, and compare the start of its replies with their ideal times.

One loop serves all sessions. Every 20 ms have four phases, with a quarter of the sessions each. Every session begins
its first cycle at its own seeded time, so that the ends of turns spread over the cycle. Lateness and answers are both
measured against the schedule.
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
from benchmarks.frameworks.timing import Answers, EngineTimes, TimedEdge, judge, merge

PHASES = 4
SEED = 20_261_125


class Link(Protocol):
    """A connection with some sessions.

    Attributes:
        sounded: For each session, the times at which a reply began to sound (monotonic clock).
    """

    sounded: list[list[float]]

    def send(self, frames: Sequence[tuple[int, int, int]]) -> None:
        """Send all frames that are due at the same time, as (session of this link, stream, frame of the cycle)."""
        ...


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """Schedule of all sessions.

    Attributes:
        starts: For each session, the frame at which its first cycle begins.
        cycles: Number of cycles per session.
        streams: Number of streams. Sessions use them in turn.
    """

    starts: tuple[int, ...]
    cycles: int
    streams: int

    def stream(self, session: int) -> int:
        """Return the number of a session's stream."""
        return session % self.streams

    def due(self, session: int, begin: float) -> float:
        """Return the time of a session's first frame, if the schedule starts at `begin`."""
        return begin + self.starts[session] * FRAME_S + (session % PHASES) * FRAME_S / PHASES

    @property
    def frames(self) -> int:
        """Length of the schedule in frames, until the last session has had all its cycles."""
        return max(self.starts) + self.cycles * CYCLE_FRAMES


def plan(sessions: int, cycles: int, streams: int) -> FeedPlan:
    """Return the schedule for a number of sessions. It is the same for every contender."""
    draw = random.Random(SEED)
    return FeedPlan(tuple(draw.randrange(CYCLE_FRAMES) for _ in range(sessions)), cycles, streams)


@dataclass(slots=True)
class Feeder:
    """Feeder of one run. Call `feed` once, then `late_p99_ms` and `answers`.

    Attributes:
        links: Connections, which carry the sessions in order.
        per_link: Sessions per connection.
        plan: The schedule.
        warm_up_s: Time at the start that does not count.
        late_s: Lateness of every send, in order.
        begin: Start of the schedule (monotonic clock).
    """

    links: Sequence[Link]
    per_link: int
    plan: FeedPlan
    warm_up_s: float = 2 * CYCLE_S
    late_s: array[float] = field(default_factory=lambda: array("d"))
    begin: float = 0.0

    @property
    def counted_from(self) -> float:
        """End of the warm-up: every session has begun its second cycle."""
        return self.begin + self.warm_up_s

    async def feed(self) -> None:
        """Send every frame at its time, and return after the last one. Garbage collection is off meanwhile."""
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
        """Return the 99th percentile of the lateness after the warm-up."""
        counted = np.array(self.late_s)[round(self.warm_up_s / FRAME_S) * PHASES :]
        return float(np.percentile(counted, 99)) * 1000

    def answers(self, edges: Sequence[TimedEdge], engines: EngineTimes) -> Answers:
        """Match the replies of all sessions to their turns. `edges` has the end of the turn in each stream."""
        parts = []
        for session in range(len(self.plan.starts)):
            sounded = sorted(self.links[session // self.per_link].sounded[session % self.per_link])
            first = self.plan.due(session, self.begin)
            ideal_s = edges[self.plan.stream(session)].ideal_ms(engines) / 1000
            ideal = [first + cycle * CYCLE_S + ideal_s for cycle in range(self.plan.cycles)]
            timeout_s = CYCLE_S - ideal_s
            parts.append(judge(ideal, sounded, timeout_s, self.counted_from))
        return merge(parts)
