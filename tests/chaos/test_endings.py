"""Tests of faults that end a system of one machine: `rejoinder serve` says why, ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.endings import end_by
from tests.chaos.rows import PAUSE_S, Row
from tests.chaos.system import System, settings
from tests.system.harness.served import serving

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

# Most seconds from the death of the raylet to the end of `rejoinder serve`: half a second to notice it, five for the
# processes that ignore SIGTERM.
RAYLET_S = 15.0
GCS_S = 70.0
# Most seconds from a question to the apology on a machine that does other work too. The longest measured is 2.6 s.
SOUND_S = 4.0


def test_a_killed_raylet_ends_the_system(tmp_path: Path, question: bytes) -> None:
    """Without its raylet `rejoinder serve` ends within RAYLET_S with status 1 and a sentence, and leaves no process."""
    ending = end_by("raylet", tmp_path, question, watch_s=5)
    print(ending)
    assert ending.ended_s is not None
    assert ending.ended_s < RAYLET_S
    assert (ending.status, ending.left) == (1, [])
    assert "raylet" in ending.sentence


@pytest.mark.chaos
def test_without_the_gcs_calls_go_on_for_a_while(tmp_path: Path, question: bytes) -> None:
    """Without its GCS and without Redis, calls go on for 45 s, and then `rejoinder serve` ends.

    It ends with status 1 and a sentence, and leaves no process behind.
    """
    ending = end_by("gcs", tmp_path, question, watch_s=45)
    print(ending)
    assert (ending.seen.cut, ending.seen.unanswered) == (0, 0)
    assert ending.ended_s is not None
    assert 45 < ending.ended_s < GCS_S
    assert (ending.status, ending.left) == (1, [])
    assert "GCS" in ending.sentence


def test_a_killed_serve_leaves_nothing(tmp_path: Path, question: bytes) -> None:
    """If `rejoinder serve` is killed, its guard ends HAProxy and all else, so that the next one can have the port."""
    ending = end_by("serve", tmp_path, question, watch_s=5)
    print(ending)
    assert (ending.status, ending.left) == (-9, [])


async def test_the_only_replica_of_a_stage_is_missed(tmp_path: Path, question: bytes) -> None:
    """If the only replica of speech to text is stopped, callers hear an apology within SOUND_S.

    Health names the stage. New calls are refused meanwhile, and answered again when the replica continues.
    """
    with serving(tmp_path, settings(hosts=1, replicas=1)) as served:
        system = System(served, question, hosts=1, replicas=1)
        await asyncio.to_thread(system.await_whole)
        row = Row("stt", kill=False, watch_s=18, cut=0, silence_s=8.0, recovery_s=PAUSE_S + 6)
        found = await row.run(system)
    print(found)
    assert row.broken(found) == []
    assert found.sound_s < SOUND_S
    assert "503 cannot reach stt" in found.health
    assert set(found.reasons) == {"HTTP 503"}
