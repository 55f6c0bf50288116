"""Send audio to a contender in real time, and compare the start of its replies with their ideal times.

A session's audio is a cycle of 8 s that repeats: one phrase, then silence. One loop serves all sessions. Each interval
of 20 ms has four phases, and each phase sends the frames of a quarter of the sessions. Every session begins its first
cycle at a different time, drawn with a fixed seed, so that the ends of turns spread over the cycle. The lateness of
sends and the latency of answers are both measured against the schedule.
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
    """Protocol of the harness's connection to a contender: it carries the audio of a number of sessions.

    Attributes:
        sounded: For each session of the link, the times at which a reply became audible (monotonic clock, in seconds).
    """

    sounded: list[list[float]]

    def send(self, frames: Sequence[tuple[int, int, int]]) -> None:
        """Send all frames that are due at the same time.

        Args:
            frames: For each frame, the number of the session on this link, the number of the stream whose audio is
                sent, and the number of the frame in the stream's cycle.
        """
        ...


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """Schedule of all sessions. A cycle is 8 s of audio: one phrase, then silence.

    Attributes:
        starts: For each session, the number of the 20 ms frame at which its first cycle begins.
        cycles: Number of cycles per session.
        streams: Number of streams (different input audio). Session n uses stream n modulo `streams`.
    """

    starts: tuple[int, ...]
    cycles: int
    streams: int

    def stream(self, session: int) -> int:
        """Return the number of the audio stream that this session sends."""
        return session % self.streams

    def due(self, session: int, begin: float) -> float:
        """Return the time in seconds at which a session's first frame is due, if the schedule starts at `begin`."""
        return begin + self.starts[session] * FRAME_S + (session % PHASES) * FRAME_S / PHASES

    @property
    def frames(self) -> int:
        """Length of the schedule in frames of 20 ms, to the end of the last session's last cycle."""
        return max(self.starts) + self.cycles * CYCLE_FRAMES


def plan(sessions: int, cycles: int, streams: int) -> FeedPlan:
    """Return the schedule for a number of sessions. It is the same for every contender.

    Args:
        sessions: Number of sessions.
        cycles: Number of 8 s cycles of audio per session.
        streams: Number of streams of audio among which the sessions are divided.
    """
    draw = random.Random(SEED)
    return FeedPlan(tuple(draw.randrange(CYCLE_FRAMES) for _ in range(sessions)), cycles, streams)


@dataclass(slots=True)
class Feeder:
    """Sender of the audio of one run. Call `feed` once, then `late_p99_ms` and `answers`.

    Attributes:
        links: Connections. The first carries the first `per_link` sessions, and so on.
        per_link: Sessions per connection.
        plan: The schedule.
        warm_up_s: Seconds at the start whose turns and send delays do not count.
        late_s: Delay of every send in seconds, in order.
        begin: Start of the schedule (monotonic clock, in seconds).
    """

    links: Sequence[Link]
    per_link: int
    plan: FeedPlan
    warm_up_s: float = 2 * CYCLE_S
    late_s: array[float] = field(default_factory=lambda: array("d"))
    begin: float = 0.0

    @property
    def counted_from(self) -> float:
        """Time at which the warm-up ends (monotonic clock, in seconds).

        By then every session has spoken, and was answered, once.
        """
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
        """Return the 99th percentile of the delay of sends after the warm-up, in milliseconds."""
        counted = np.array(self.late_s)[round(self.warm_up_s / FRAME_S) * PHASES :]
        return float(np.percentile(counted, 99)) * 1000

    def answers(self, edges: Sequence[TimedEdge], engines: EngineTimes) -> Answers:
        """Return the added latencies, missed turns and stray replies of all sessions. Call this after `feed`.

        The ideal answer times are computed from `edges`, the end of the turn in each stream, and `engines`, the fixed
        times of the engines.
        """
        parts = []
        for session in range(len(self.plan.starts)):
            sounded = sorted(self.links[session // self.per_link].sounded[session % self.per_link])
            first = self.plan.due(session, self.begin)
            ideal_s = edges[self.plan.stream(session)].ideal_ms(engines) / 1000
            ideal = [first + cycle * CYCLE_S + ideal_s for cycle in range(self.plan.cycles)]
            timeout_s = CYCLE_S - ideal_s
            parts.append(judge(ideal, sounded, timeout_s, self.counted_from))
        return merge(parts)
