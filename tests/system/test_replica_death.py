"""Tests of the death of a stage's replica (SIGKILL) while it works on the request of a turn, for each stage.

If there is a second replica, the turn is answered after a short delay. If not, the caller hears an apology at once, and
the answer to the same turn when Serve has replaced the replica.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.harness.served import Served, kill_holder, serving
from tests.system.harness.wire_caller import calling

pytestmark = [pytest.mark.timed, pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

STAGES = ["vad", "turn_detector", "stt", "llm", "tts"]
# Injected delay in milliseconds of the stages whose requests are too short for a test to kill a replica during one.
HELD_MS = {"vad": 20, "turn_detector": 200}
ANSWERED_S = 3.0
APOLOGISED_S = 1.5
# Maximum seconds from the last word to the end of turn, on a busy machine.
TAKEN_S = 1.0


def _args(replicas: int) -> dict[str, Any]:
    scaling = {"min_replicas": replicas, "max_replicas": replicas}
    args: dict[str, Any] = {name: {"autoscaling": scaling, "inject_delay_ms": HELD_MS.get(name, 0)} for name in STAGES}
    args["vad"]["placement"] = "deployment"
    # The killed replica must be working on the request of the turn, so interim transcripts and prefill are off.
    # Without reused state every turn computes its whole prompt, so the model is the small one and the prompt is short.
    llm = args["llm"] | {"reuse_state": False, "model": "smollm2-135m-instruct"}
    args |= {"interim_transcripts": {"enabled": False}, "llm": llm}
    # Every turn asks the turn detector, and ends 0.5 s after the last word if the evidence is not enough: the limits
    # are for the death of a replica, not for the patience with a caller. A test would take a filler for an answer.
    endpointing = {"ask_after_ms": 0, "patience_ms": 500, "fallback_silence_ms": 500}
    return args | {"endpointing": endpointing, "conversation": {"filler_after_ms": 0, "instructions": "Be brief."}}


@pytest.fixture(scope="module")
def two_of_each(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("two"), _args(2)) as served:
        yield served


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("one"), _args(1)) as served:
        yield served


@pytest.mark.parametrize("stage", STAGES)
async def test_with_two_replicas_the_same_turn_is_answered(two_of_each: Served, stage: str, question: bytes) -> None:
    """With two replicas, the answer is audible within 3 s of the death or, if later, of the caller's last word."""
    replicas = await asyncio.to_thread(two_of_each.wait_for, stage, 2)
    async with calling(two_of_each.url) as caller:
        caller.say(question)
        _, killed = await asyncio.to_thread(kill_holder, replicas)
        await caller.spoken()
        spoken = time.monotonic()
        done = await caller.until("response.done")
    assert done["response"]["status"] == "completed", done
    assert "Paris" in caller.said()
    answered = caller.audible_after(max(killed, spoken))
    print(f"{stage}: audible {answered:.2f} s after the death (or the caller's last word)")
    assert answered is not None
    assert answered < ANSWERED_S


@pytest.mark.parametrize("stage", STAGES)
async def test_with_one_replica_an_apology_then_the_answer(one_of_each: Served, stage: str, question: bytes) -> None:
    """With one replica, the caller hears an apology, and the answer after its replacement.

    The apology comes within 1.5 s of the death or, if later, of the caller's last word. A short pause inside the
    question may bring the stage a request, so that the replica dies before the last word.
    """
    replicas = await asyncio.to_thread(one_of_each.wait_for, stage, 1)
    async with calling(one_of_each.url) as caller:
        caller.say(question)
        pid, killed = await asyncio.to_thread(kill_holder, replicas)
        await caller.spoken()
        spoken = time.monotonic()
        while "Paris" not in caller.said():
            await caller.until("response.done", len(caller.of("response.done")) + 1, timeout_s=90)
        audible = caller.audible_after(max(killed, spoken))
    print(f"{stage}: audible {audible:.2f} s after the death (or the caller's last word); said {caller.said()!r}")
    assert audible is not None
    assert audible < APOLOGISED_S
    await asyncio.to_thread(one_of_each.wait_for, stage, 1, pid)


async def test_stages_that_died_before_the_request(one_of_each: Served, question: bytes) -> None:
    """If the only replicas of stt, llm and tts die before the turn's first request, the caller hears an apology.

    It comes within 1.5 s of the end of turn, and the answer follows when Serve has replaced the replicas.
    """
    dying = ("stt", "llm", "tts")
    pids = {stage: (await asyncio.to_thread(one_of_each.wait_for, stage, 1))[0]["pid"] for stage in dying}
    async with calling(one_of_each.url) as caller:
        for pid in pids.values():
            os.kill(int(pid), signal.SIGKILL)
        caller.say(question)
        await caller.spoken()
        spoken = time.monotonic()
        while "Paris" not in caller.said():
            await caller.until("response.done", len(caller.of("response.done")) + 1, timeout_s=90)
        audible = caller.audible_after(spoken)
    print(f"audible {audible:.2f} s after the caller's last word; said {caller.said()!r}")
    assert audible is not None
    assert audible < TAKEN_S + APOLOGISED_S
    for stage, pid in pids.items():
        await asyncio.to_thread(one_of_each.wait_for, stage, 1, pid)
