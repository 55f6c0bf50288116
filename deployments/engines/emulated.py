"""Emulated engines: real deployments with real queues and cancellation, but without a model.

A request occupies one of the engine's slots for a service time from `rejoinder.core.measuring.service_curves`. Other
requests wait in a bounded queue or are refused. Emulated engines are for measuring the system around the engines. In
reports, an emulated engine's name says "emulated" and gives its service-time curve and the curve's source. The audio is
audible and the text consists of words, because barge-in, segmentation and captions depend on these.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actors.stages.ports import LlmRequest, LlmUsage, SttJob, TokenDelta, Transcript, TtsRequest
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import Replica, StageDeployment
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, WIRE_RATE, float_to_pcm16
from rejoinder.core.errors import Overloaded
from rejoinder.core.measuring import audio_watermark as marking
from rejoinder.core.measuring.service_curves import EmulatedStage, EngineProfile, ServiceSampler
from rejoinder.core.reply.playout import CHARACTERS_PER_S
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.reply.tools.schema_values import smallest_value
from rejoinder.core.settings.settings import EmulationSettings, Settings, StageSettings

WORDS = tuple(
    "Thank you for calling and asking me that today . It is a good question with a short and simple answer here . "
    "Let me tell you what I know about it and then you can ask again .".replace(" .", ".").split()
)
# The emulated voice is a vowel of this pitch, as loud as a telephone conversation (-20 dBFS). Every check for audible
# speech accepts it.
TONE_HZ = 120
TONE_DBFS = -20.0


@dataclass(slots=True)
class Lease:
    """The use of one slot by one request. Times are in seconds of the event loop's clock.

    Attributes:
        service_s: Service time of this request, drawn at random.
        started_at: Time at which the request got the slot.
        waited_s: How long the request waited in the queue.
        ends_at: Time at which the service ends. The code that uses the slot sets it.
    """

    service_s: float
    started_at: float
    waited_s: float
    ends_at: float


class Slots:
    """The slots of one engine, with a bounded queue. A request is refused if `max_queue` requests are waiting."""

    def __init__(self, emulation: EmulationSettings, profile: EngineProfile, max_queue: int, seed: str) -> None:
        self._service = ServiceSampler(profile.curve, random.Random(f"{emulation.seed}/{seed}").random)
        self._free = asyncio.Semaphore(profile.slots)
        self._ignore_cancellation = emulation.ignore_cancellation
        self._max_queue = max_queue
        self._stage = profile.stage
        self._waiting = 0
        self.in_service = 0

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Lease]:
        """Wait for a slot, yield its `Lease`, and free the slot at the end of the context.

        Leaving the context before `ends_at` frees the slot at once. With the setting `ignore_cancellation` the slot
        stays taken until `ends_at`.

        Raises:
            Overloaded: All slots are taken and `max_queue` requests wait.
        """
        loop = asyncio.get_running_loop()
        arrived_at = loop.time()
        await self._acquire()
        self.in_service += 1
        started_at = loop.time()
        lease = Lease(self._service.next_s(self.in_service), started_at, started_at - arrived_at, started_at)
        try:
            yield lease
        finally:
            if self._ignore_cancellation and lease.ends_at > loop.time():
                loop.call_at(lease.ends_at, self._release)
            else:
                self._release()

    async def _acquire(self) -> None:
        if self._free.locked() and self._waiting >= self._max_queue:
            raise Overloaded(
                f"All {self._stage} slots are taken and {self._waiting} requests wait.",
                f"Add a {self._stage} replica.",
                resource=f"{self._stage}.max_queue",
            )
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    def _release(self) -> None:
        self.in_service -= 1
        self._free.release()


def _name(profile: EngineProfile, emulation: EmulationSettings) -> str:
    """Return the name for reports: the profile, the source of its service times and its number of slots."""
    profile_name = emulation.profile or "own curve"
    return f"emulated {profile_name} ({profile.source}; {profile.slots} slots)"


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))


def _open(
    stage: EmulatedStage, settings: StageSettings, emulation: EmulationSettings, max_queue: int
) -> tuple[EngineProfile, Replica, Slots]:
    profile = emulation.resolve(stage)
    replica = Replica(stage, _name(profile, emulation), settings, slots=profile.slots)
    return profile, replica, Slots(emulation, profile, max_queue, replica.description.replica)


class EmulatedStt(StageDeployment):
    """Replacement of the `Stt` deployment whose transcript states how many seconds of speech it received."""

    def __init__(self, settings: Settings) -> None:
        stage = settings.stt
        _, self._replica, self._slots = _open("stt", stage, stage.emulation, stage.max_queue)
        self._end = "." if stage.emulation.full_stop else ""

    async def transcribe(self, job: SttJob, route: ReplicaRoute | None = None) -> Transcript:
        """Wait for the service time, then return a sentence that states the duration of the job's audio.

        `route` is for the router in the calling process. If it names a host, the answer has the replica's load. Raises
        Overloaded if all slots are taken and the queue is full.
        """
        essential = job.priority.awaited
        async with self._replica.request(route, essential=essential) as inside, self._slots.hold() as lease:
            inside.waited(lease.waited_s)
            lease.ends_at = lease.started_at + lease.service_s
            await _until(lease.ends_at)
            inside.produced()
            audio_ms = len(job.pcm) / SAMPLE_BYTES * 1000 / STT_RATE
            text = marking.transcript(audio_ms / 1000, self._end)
            transcript = Transcript(text, audio_ms, lease.waited_s * 1000, lease.service_s * 1000, avg_logprob=0.0)
            return self._replica.with_load(transcript, route)


class EmulatedLlm:
    """An `LlmEngine` that sends its first token after a random service time and the others at the profile's rate.

    A request keeps its slot until the last token.
    """

    prefills = False

    def __init__(self, settings: Settings, seed: str) -> None:
        stage = settings.llm
        self._profile = stage.emulation.resolve("llm")
        self._tokens = stage.emulation.tokens
        self._coalesce_s = stage.coalesce_ms / 1000
        self._marked = stage.emulation.marked
        self._slots = Slots(stage.emulation, self._profile, stage.max_queue, seed)
        self.name = _name(self._profile, stage.emulation)

    @property
    def active(self) -> int:
        """Number of requests that have a slot."""
        return self._slots.in_service

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta, None]:
        """Yield the answer, one word per token, or the calls of tools. The answer begins after `request.prefix`.

        Raises Overloaded if all slots are taken and the queue is full.
        """
        if calls := self._calls(request):
            async with self._slots.hold() as lease:
                lease.ends_at = lease.started_at + lease.service_s
                await _until(lease.ends_at)
                yield TokenDelta("", 0, "tool_calls", LlmUsage(0, len(calls), queue_s=lease.waited_s), calls=calls)
            return
        skipped = len(request.prefix.split())
        vocabulary = itertools.cycle(self._vocabulary(request))
        words = list(itertools.islice(vocabulary, skipped, max(skipped + 1, self._tokens)))[: request.max_tokens]
        prompt_tokens = sum(len(message.content.split()) for message in request.messages)
        async with self._slots.hold() as lease:
            pace_s = 1 / self._profile.tokens_per_s
            first_at = lease.started_at + lease.service_s
            lease.ends_at = first_at + pace_s * (len(words) - 1)
            await _until(first_at)
            burst = max(1, round(self._coalesce_s / pace_s))
            sent = 0
            while sent < len(words):
                count = 1 if sent == 0 else min(burst, len(words) - sent)
                await _until(first_at + pace_s * (sent + count - 1))
                text = "".join(f"{word} " for word in words[sent : sent + count])
                sent += count
                last = sent == len(words)
                usage = LlmUsage(prompt_tokens, sent, queue_s=lease.waited_s) if last else None
                yield TokenDelta(text.rstrip() if last else text, count, "stop" if last else None, usage)

    def _calls(self, request: LlmRequest) -> tuple[ToolCall, ...]:
        """Return the tools that the emulated model calls, with the smallest arguments that their schemas accept.

        It calls the tools whose names occur in the caller's message, or the first one if it must call a tool.
        """
        offer = request.tools
        last = request.messages[-1] if request.messages else ChatMessage("user", "")
        words = last.content.lower().replace(" ", "_") if last.role == "user" else ""
        named = [tool for tool in offer.callable_tools if tool.name.lower() in words]
        chosen = named or (list(offer.callable_tools[:1]) if offer.forced else [])
        return offer.accepted([ToolCall(tool.name, json.dumps(smallest_value(tool.schema))) for tool in chosen])

    def _vocabulary(self, request: LlmRequest) -> tuple[str, ...]:
        """Return the words that the answer repeats.

        After the result of a tool they are the words of the result. With the setting `marked` they name the last number
        in the caller's message, so that tests can detect mixed-up conversations. Otherwise, or without a number, they
        are WORDS.
        """
        if request.messages and request.messages[-1].role == "tool":
            return tuple(request.messages[-1].content.split()) or WORDS
        marks = marking.marks_in(request.messages[-1].content) if self._marked and request.messages else ()
        return marking.answer(marks[-1]) if marks else WORDS

    async def check_health(self) -> None:
        """Do nothing: only the event loop can hang, and the replica checks that itself."""


class EmulatedTts(StageDeployment):
    """Replacement of the `Tts` deployment that returns a tone as long as the text takes to speak."""

    def __init__(self, settings: Settings) -> None:
        stage = settings.tts
        self._profile, self._replica, self._slots = _open("tts", stage, stage.emulation, stage.max_queue)
        self._chunk_s = stage.chunk_ms / 1000
        self._marked = stage.emulation.marked
        self._vowel = _vowel()

    async def synthesize(self, request: TtsRequest, route: ReplicaRoute | None = None) -> AsyncGenerator[bytes, None]:
        """Wait for the service time, then yield 24 kHz 16-bit PCM as fast as the profile's engine would synthesize it.

        `route` is for the router in the calling process. If it names a host, the answer has the replica's load. Raises
        Overloaded if all slots are taken and the queue is full.
        """
        async with (
            self._replica.request(route, essential=request.for_call) as inside,
            self._slots.hold() as lease,
        ):
            inside.waited(lease.waited_s)
            total_s = max(0.1, len(request.text) / CHARACTERS_PER_S / request.speed)
            first_at = lease.started_at + lease.service_s
            lease.ends_at = first_at + total_s / self._profile.speed
            async with aclosing(self._chunks(self._second(request.text), total_s, first_at)) as chunks:
                first = True
                async for chunk in chunks:
                    inside.produced()
                    yield self._replica.with_load(chunk, route if first else None)
                    first = False

    async def _chunks(self, second: bytes, total_s: float, first_at: float) -> AsyncGenerator[bytes, None]:
        made, total, chunk = 0, round(total_s * WIRE_RATE), round(self._chunk_s * WIRE_RATE)
        while made < total:
            # The first chunk is sent after the service time. A later chunk is sent when an engine with the profile's
            # speed would have synthesized all audio before the chunk.
            await _until(first_at + made / WIRE_RATE / self._profile.speed)
            yield _cut(second, made, min(chunk, total - made))
            made += chunk

    def _second(self, text: str) -> bytes:
        """Return one second of 24 kHz PCM, which is repeated to speak `text`.

        With the setting `marked` it is a tone that encodes the last number in `text`. Otherwise, or without a number,
        it is a vowel.
        """
        marks = marking.marks_in(text) if self._marked else ()
        return _leveled(marking.tone(marks[-1])) if marks else self._vowel


def _cut(second: bytes, start: int, samples: int) -> bytes:
    offset = start % WIRE_RATE
    needed = math.ceil((offset + samples) / WIRE_RATE)
    return (second * needed)[offset * SAMPLE_BYTES : (offset + samples) * SAMPLE_BYTES]


def _vowel() -> bytes:
    """Return one second of a vowel as 24 kHz PCM, which can be repeated without a click."""
    phase = 2 * np.pi * TONE_HZ * np.arange(WIRE_RATE) / WIRE_RATE
    return _leveled(sum((np.sin(phase * overtone) / overtone for overtone in (1, 2, 3)), np.zeros(WIRE_RATE)))


def _leveled(wave: npt.NDArray[np.float64]) -> bytes:
    return float_to_pcm16(wave * 10 ** (TONE_DBFS / 20) / np.sqrt(np.mean(np.square(wave))))
