"""Tests of the barge-in bench, which measures how long a reply continues after the caller interrupts.

A run passes if 95% of the interruptions stop their reply within `LIMIT_MS` milliseconds, and if each conversation
history contains only text that was played.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.benches.barge_in import LIMIT_MS, Interruption, Stops, interruptions, script
from loadtest.callers.scripted_caller import ScriptedBehavior, ScriptedLine
from tests.loadtest.callers.scene import Scene, clip, report, tone

LINE_S = 1.5
GOOD = Interruption(
    "b.wav", 120.0, 20.0, 60.0, heard_s=2.0, kept_s=1.8, kept="Once upon a time", said="Once upon a time."
)


def stops(*found: Interruption) -> Stops:
    return Stops(len(found), found)


def test_interruptions_come_at_every_offset() -> None:
    """Two callers with ten interruptions each interrupt at 20 different times after the start of a reply.

    Each script starts with a question, and its interruptions use all clips.
    """
    clips = [clip("a.wav"), clip("b.wav")]
    lines = script(clip("q.wav"), clips, 10, offset=0) + script(clip("q.wav"), clips, 10, offset=10)
    offsets = [line.barge_in_s for line in lines if line.barge_in_s is not None]
    assert len(set(offsets)) == len(offsets) == 20
    assert {line.clip.name for line in lines if line.barge_in_s is not None} == {"a.wav", "b.wav"}


def test_an_interruption_is_measured_from_its_first_frame() -> None:
    """`stop_ms`, the time until the reply is silent, starts at the interruption's first frame with speech.

    `heard_s` is the length of the reply that was played until then.
    """
    over = clip("b.wav", before=0.11)
    scene = Scene(
        ScriptedLine(clip("a.wav")), ScriptedLine(over, barge_in_s=1.0), behavior=ScriptedBehavior(leaves=True)
    )
    scene.hears(0.7, "i1")
    scene.commits(0.5 + LINE_S + 0.2, "i1", "tell me a story")
    began = 0.5 + LINE_S + 0.4
    scene.replies(began, "r1", "Once upon a time there was a king.", tone(5.0))
    onset = began + 1.0 + 0.11
    scene.hears(onset + 0.12, "i2")
    scene.done(onset + 0.2, "r1", report("i1", 1500) | {"interrupted": True, "stop_ms": 70.0}, status="cancelled")
    [found] = interruptions(scene.dialogue)
    assert found.stop_ms == pytest.approx(120, abs=21)
    assert 0 < found.frame_ms <= 20
    assert found.server_ms == 70
    assert found.heard_s == pytest.approx(onset + 0.12 - began, abs=0.021)
    assert found.said == "Once upon a time there was a king."


def test_it_passes_if_the_95th_percentile_is_at_the_limit() -> None:
    """A run passes if 19 of 20 interruptions stop their reply within exactly `LIMIT_MS` and one takes longer.

    Every history must be correct: it has no text that was not played.
    """
    assert stops(*[replace(GOOD, stop_ms=LIMIT_MS)] * 19, replace(GOOD, stop_ms=400.0)).holds


@pytest.mark.parametrize(
    "found",
    [
        stops(*[GOOD] * 18, *[replace(GOOD, stop_ms=LIMIT_MS + 1)] * 2),
        stops(*[GOOD] * 19, replace(GOOD, kept_s=2.2)),
        stops(*[GOOD] * 19, replace(GOOD, kept="Twice upon")),
        Stops(21, (GOOD,) * 20),
        Stops(0, ()),
    ],
    ids=["late", "keeps text not played", "keeps text not sent", "one missing", "nothing"],
)
def test_it_fails(found: Stops) -> None:
    """A run fails if 10% of the interruptions stop their reply later than `LIMIT_MS`.

    It fails if a conversation history contains text that was not played, or that the server did not send.
    It also fails if an interruption stopped no reply, or if there were no interruptions.
    """
    assert not found.holds


def test_a_caller_who_leaves_does_not_wait_for_the_last_reply() -> None:
    """With the behavior `leaves`, a caller's conversation ends when the reply to the last line starts to play."""
    for leaves in (True, False):
        scene = Scene(ScriptedLine(clip("a.wav")), behavior=ScriptedBehavior(leaves=leaves))
        scene.hears(0.7, "i1")
        scene.commits(0.5 + LINE_S + 0.2, "i1", "tell me a story")
        assert not scene.dialogue.finished
        scene.replies(0.5 + LINE_S + 0.4, "r1", "Once upon a time.", tone(5.0))
        assert scene.dialogue.finished == leaves
