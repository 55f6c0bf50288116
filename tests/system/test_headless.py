"""Tests of the headless host, a host without a network whose sessions get recorded speech over a local socket.

The recordings, and the rules by which answers are judged, come from benchmarks/frameworks.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.frameworks.contestants import named, python_of
from benchmarks.frameworks.feeder import Feeder, plan
from benchmarks.frameworks.links import SocketLink
from benchmarks.frameworks.process import ProcessTree, cores
from benchmarks.frameworks.streams import streams
from benchmarks.frameworks.timing import EngineTimes
from benchmarks.frameworks.trial import command, find_edges
from rejoinder.store.model_store import ModelStore

pytestmark = [pytest.mark.timed, pytest.mark.models, pytest.mark.timeout(180)]

# Maximum milliseconds from the ideal time of an answer to its start. This is far above the limit of the framework
# comparison, because the machine may be busy.
BROKEN_MS = 400.0


@pytest.mark.parametrize("name", ["ours-headless", "ours-smart-turn"])
async def test_every_turn_is_answered_near_its_ideal_time(name: str, store: ModelStore, tmp_path: Path) -> None:
    """Each of four speakers gets exactly one answer to each of two turns, none missing and none additional.

    An answer comes at most BROKEN_MS after its ideal time, which follows from the end of speech in the recording.
    """
    contestant = named((name,))[0]
    python = python_of(contestant, tmp_path)
    speech = streams(store.path("human-clips"))[:4]
    edges = await asyncio.to_thread(find_edges, contestant, python, speech)
    link = SocketLink(4, speech)
    server = await asyncio.get_running_loop().create_unix_server(lambda: link, str(tmp_path / "socket"))
    tree = ProcessTree(cores().contender)
    try:
        options = ("--socket", str(tmp_path / "socket"), "--sessions", "4")
        tree.start((*command(contestant, python), *options), {}, tmp_path / "log")
        await asyncio.wait_for(link.ready, 60)
        feeder = Feeder([link], 4, plan(4, 2, 4), warm_up_s=0.0)
        await feeder.feed()
        answers = feeder.answers(edges, EngineTimes())
    finally:
        server.close()
        await asyncio.to_thread(tree.stop)
    assert all(len(sounded) == 2 for sounded in link.sounded)
    assert (answers.turns, answers.missed, answers.stray) == (8, 0, 0)
    assert max(answers.added_ms, default=0.0) < BROKEN_MS
