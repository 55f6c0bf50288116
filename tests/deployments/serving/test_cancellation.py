"""Tests of cancellation in each engine, on a real Ray Serve with real models.

A cancelled request that is queued leaves the queue at once. The language model stops at its next token and text to
speech at its next chunk. A running transcription finishes, and its result is dropped. The slot is then free for the
next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from rejoinder.core.audio.pcm import STT_RATE, WIRE_RATE
from tests.system.harness.lab import LabClient, deploy
from tests.system.harness.nodes import head
from tests.system.harness.served import Served, metric, serving
from tests.system.harness.watching import Gauges, cpu_share, wait_until
from tests.system.harness.wire_caller import calling

pytestmark = [pytest.mark.timed, pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(240)]

STORY = "Tell me a very long story about a brave little fox and all her friends."
TOKENS = 1000
LONG_TEXT = "The brave little fox went down to the river to look for her old friend the otter. " * 12
# Maximum seconds from the cancellation to the end in the replica. A step of the model takes 30 ms, but the machine may
# be busy.
STOPPED_S = 1.0
VANISHED_S = 2.0
# Maximum seconds until the first answer to the next request. The cancelled work would take many seconds more.
NEXT_S = 2.0
# Maximum number of cores of an idle replica. A replica that generates uses at least one core.
IDLE_CORES = 0.4

# Every reply is hedged: the second request is sent long before the first token of either.
ARGS: dict[str, Any] = {
    "conversation": {"max_reply_tokens": 400},
    "hedging": {"first_token_deadline_ms": 1, "min_delay_ms": 1, "budget": 1.0},
    # No interim transcripts at dips of the voice: these could start speculative replies that are cancelled. Then the
    # only cancelled requests are those that lose against a hedge.
    "interim_transcripts": {"at_dips": False},
}


@dataclass(frozen=True)
class System:
    """A served application, a lab that calls its deployments, and the replicas of the three engines."""

    served: Served
    lab: LabClient
    replicas: list[dict[str, str]]

    def stage(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each replica of the stage `name`, such as "pid" and "replica" (its id)."""
        return [replica for replica in self.replicas if replica["stage"] == name]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder: Path = tmp_path_factory.mktemp("cancellation")
    with (
        head() as node,
        serving(folder, ARGS, address=node.address, environment=node.environment, orderly=False) as served,
    ):
        lab = deploy(node, served.url, "rejoinder")
        yield System(served, lab, [r for stage in ("stt", "llm", "tts") for r in served.replicas(stage)])


@pytest.fixture
def gauges(system: System) -> Iterator[Gauges]:
    """Return a reader of the number of requests in flight in each stage, after all stages have become idle."""
    with Gauges(system.replicas) as found:
        found.wait_for(0, 30)
        yield found


def _first_s(lab: LabClient, number: int) -> float:
    """Wait for a call's first answer, and return the seconds from the call's start to it."""
    wait_until(lambda: lab.state(number)["items"] > 0, 20, "the first answer")
    return float(lab.state(number)["first_s"])


@pytest.mark.parametrize("end", ["leave", "cancel"])
def test_the_language_model_stops_at_its_next_token(system: System, gauges: Gauges, end: str) -> None:
    """A generation that its reader leaves (as in a barge-in) or cancels (as in a hedge) stops within 1 s.

    The first token of the next request to the same replica comes within 2 s.
    """
    lab = system.lab
    number = lab.start("read", stage="llm", text=STORY, tokens=TOKENS)
    _first_s(lab, number)
    busy = lab.state(number)["replica"]
    getattr(lab, end)(number)
    gauges.wait_for(0, STOPPED_S)
    pid = next(replica["pid"] for replica in system.stage("llm") if replica["replica"] == busy)
    assert cpu_share(pid) < IDLE_CORES
    others = [replica["replica"] for replica in system.stage("llm") if replica["replica"] != busy]
    assert _first_s(lab, lab.start("read", stage="llm", text="Hello.", tokens=2, avoid=others, strict=True)) < NEXT_S


def test_a_queued_generation_leaves_at_once(system: System, gauges: Gauges) -> None:
    """A waiting request that is cancelled leaves the replica within 1 s, and the running request continues."""
    lab = system.lab
    first = lab.start("read", stage="llm", text=STORY, tokens=TOKENS)
    _first_s(lab, first)
    others = [r["replica"] for r in system.stage("llm") if r["replica"] != lab.state(first)["replica"]]
    second = lab.start("read", stage="llm", text="Hello.", tokens=2, avoid=others, strict=True)
    gauges.wait_for(2, STOPPED_S)
    lab.cancel(second)
    gauges.wait_for(1, STOPPED_S)
    assert not lab.state(first)["over"]
    lab.cancel(first)


@pytest.mark.parametrize("end", ["leave", "cancel"])
def test_text_to_speech_stops_at_its_next_chunk(system: System, gauges: Gauges, end: str) -> None:
    """A cancelled segment is not synthesized to its end, and the next segment's audio begins within 2 s."""
    lab = system.lab
    number = lab.start("tts", text=LONG_TEXT)
    _first_s(lab, number)
    getattr(lab, end)(number)
    gauges.wait_for(0, STOPPED_S)
    # The current sentence is computed to its end (half a second). Without the cancellation, eleven more sentences would
    # follow.
    pid = system.stage("tts")[0]["pid"]
    wait_until(lambda: cpu_share(pid) < IDLE_CORES, NEXT_S, "an idle tts replica")
    assert _first_s(lab, lab.start("tts", text="Hello.")) < NEXT_S


def test_a_queued_segment_leaves_at_once(system: System, gauges: Gauges) -> None:
    """A waiting segment that is cancelled leaves the replica within 1 s, and the running segment continues."""
    lab = system.lab
    first = lab.start("tts", text=LONG_TEXT)
    _first_s(lab, first)
    second = lab.start("tts", text="Hello.")
    gauges.wait_for(2, STOPPED_S)
    lab.cancel(second)
    gauges.wait_for(1, STOPPED_S)
    assert not lab.state(first)["over"]
    lab.cancel(first)


def test_cancelled_transcriptions_free_the_engine(system: System, gauges: Gauges, question: bytes) -> None:
    """A waiting or running job that is cancelled is no longer counted in the replica after 1 s.

    The next job gets its transcript.
    """
    lab, clip = system.lab, _at_stt_rate(question)
    running = lab.start("stt", pcm=(clip * 12)[: 29 * STT_RATE * 2].hex())
    gauges.wait_for(1, NEXT_S, "stt")
    queued = lab.start("stt", pcm=clip.hex())
    gauges.wait_for(2, NEXT_S, "stt")
    lab.cancel(queued)
    gauges.wait_for(1, STOPPED_S, "stt")
    assert not lab.state(running)["over"]
    lab.cancel(running)
    gauges.wait_for(0, STOPPED_S, "stt")
    after = lab.start("stt", pcm=clip.hex())
    _first_s(lab, after)
    assert "capital of France" in lab.state(after)["answers"][0]


@pytest.mark.parametrize("stage", ["stt", "llm", "tts"])
async def test_a_client_that_vanishes_leaves_no_work(
    system: System, gauges: Gauges, stage: str, long_question: bytes
) -> None:
    """Two seconds after a client's connection is reset while a stage works for it, no stage works for it."""
    async with calling(system.served.url) as caller:
        caller.say(long_question)
        await asyncio.to_thread(gauges.wait_for_work, stage, 30)
        caller.vanish()
        took_s = await asyncio.to_thread(gauges.wait_for, 0, VANISHED_S)
    print(f"reset during {stage}: idle after {took_s:.2f} s")


@pytest.mark.parametrize("stage", ["llm", "tts"])
async def test_a_cancelled_response_leaves_no_work(
    system: System, gauges: Gauges, stage: str, long_question: bytes
) -> None:
    """After the client sends `response.cancel`, the response ends as cancelled.

    The language model and text to speech have stopped 1 s later.
    """
    async with calling(system.served.url) as caller:
        caller.say(long_question)
        # Before this event only a speculative reply runs, which is not a response yet.
        await caller.until("input_audio_buffer.speech_stopped")
        await asyncio.to_thread(gauges.wait_for_work, stage, 30)
        await caller.send(type="response.cancel")
        done = await caller.until("response.done")
        assert done["response"]["status"] == "cancelled"
        await asyncio.to_thread(gauges.wait_for, 0, STOPPED_S)


async def test_losers_of_hedges_are_stopped(system: System, gauges: Gauges, question: bytes) -> None:
    """After a turn with hedged language model requests, one request is cancelled for each hedge.

    Within 1 s of the end of the response no replica is busy.
    """
    host = system.served.replicas("host")[0]["target"]
    sent = metric(host, "rejoinder_hedges_total", outcome="sent")
    stopped = _cancelled(system)
    async with calling(system.served.url) as caller:
        caller.say(question)
        await caller.until("response.done")
        assert "Paris" in caller.said()
        await asyncio.to_thread(gauges.wait_for, 0, STOPPED_S)
    hedges = metric(host, "rejoinder_hedges_total", outcome="sent") - sent
    assert hedges >= 1
    assert _cancelled(system) - stopped == hedges


def _cancelled(system: System) -> float:
    """Return the number of cancelled requests of all language model replicas."""
    targets = [replica["target"] for replica in system.stage("llm")]
    return sum(metric(target, "rejoinder_requests_total", end="cancelled") for target in targets)


def _at_stt_rate(pcm: bytes) -> bytes:
    samples = soxr.resample(np.frombuffer(pcm, "<i2"), WIRE_RATE, STT_RATE)
    return bytes(samples.astype("<i2").tobytes())
