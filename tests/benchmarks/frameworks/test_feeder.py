"""Tests of the feeder, which sends audio frames to a framework under test and matches its replies to turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from benchmarks.frameworks.contender import REPLY_PCM, Onset
from benchmarks.frameworks.feeder import PHASES, Feeder, FeedPlan, plan
from benchmarks.frameworks.streams import CYCLE_FRAMES, CYCLE_S
from benchmarks.frameworks.timing import EngineTimes, TimedEdge


class Recorder:
    """Fake link to a framework under test that counts how often each frame is sent."""

    def __init__(self, sessions: int) -> None:
        self.sounded: list[list[float]] = [[] for _ in range(sessions)]
        self.sent: Counter[tuple[int, int, int]] = Counter()

    def send(self, frames: Sequence[tuple[int, int, int]]) -> None:
        self.sent.update(frames)


async def test_every_session_gets_every_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of six sessions on two links gets every frame of its own audio stream once per cycle."""
    monkeypatch.setattr("benchmarks.frameworks.feeder.CYCLE_FRAMES", 4)
    links = [Recorder(3), Recorder(3)]
    feeder = Feeder(links, 3, FeedPlan((0, 2, 1, 3, 0, 1), cycles=2, streams=4))
    await feeder.feed()
    for number, link in enumerate(links):
        expected = {(s, (3 * number + s) % 4, frame): 2 for s in range(3) for frame in range(4)}
        assert link.sent == expected
    assert len(feeder.late_s) == (3 + 2 * 4) * PHASES


def test_the_plan_is_the_same_for_all() -> None:
    """The sessions' start times are the same for every framework: equal arguments of `plan` give equal start times.

    All are within the first cycle.
    """
    assert plan(40, 5, 7) == plan(40, 5, 7)
    assert len(set(plan(40, 5, 7).starts)) > 20
    assert max(plan(400, 5, 7).starts) < CYCLE_FRAMES


def test_answers_are_matched_by_session_and_stream() -> None:
    """The ideal time of a reply follows from the session's start and its audio stream.

    If replies come 10 and 20 ms after their ideal times, their added latencies are 10 and 20 ms. Then no turn is missed
    and no reply is stray (belongs to no turn).
    """
    link = Recorder(2)
    feeder = Feeder([link], 2, FeedPlan((0, 10), cycles=3, streams=2))
    feeder.begin = 100.0
    edges = [TimedEdge(2000, 2000), TimedEdge(3000, 3000)]
    for cycle in range(3):
        link.sounded[0].append(100.0 + cycle * CYCLE_S + 2.330 + 0.010)
        link.sounded[1].append(100.0 + 0.2 + 0.005 + cycle * CYCLE_S + 3.330 + 0.020)
    found = feeder.answers(edges, EngineTimes())
    assert sorted(found.added_ms) == [pytest.approx(10), pytest.approx(20)]
    assert (found.missed, found.stray) == (0, 0)


def test_a_reply_begins_with_its_first_audible_audio() -> None:
    """Empty and silent audio starts no reply, and audio within half a second belongs to the same reply."""
    onset = Onset()
    assert not onset.begins(b"", 0.0)
    assert not onset.begins(bytes(640), 1.0)
    assert onset.begins(REPLY_PCM[:640], 1.1)
    assert not onset.begins(REPLY_PCM[:640], 1.5)
    assert not onset.begins(REPLY_PCM[:640], 1.9)
    assert onset.begins(REPLY_PCM[:640], 4.0)
