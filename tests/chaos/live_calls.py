"""Callers who ask one question after the other while a fault happens, and new callers who arrive all the time."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE
from tests.system.harness.surviving import SurvivingCaller
from tests.system.harness.wire_caller import WireCaller, calling, realtime_url

PAUSE_S = 0.5
"""Seconds between the end of an answer and the caller's next question."""
ARRIVAL_S = 0.5
"""Seconds between two new calls."""
PATIENCE_S = 3.0
"""Seconds within which a new call must be answered. A caller who waits longer counts as not answered."""

Span = tuple[float, float]


def playing(deltas: Iterable[tuple[float, float]]) -> Iterator[Span]:
    """Yield the spans of time in which a caller hears audio. Each delta plays on arrival, or after the last one.

    Args:
        deltas: For each audio delta, the time of its arrival and its length, in seconds.
    """
    until = 0.0
    for arrived_at, length_s in deltas:
        start = max(until, arrived_at)
        until = start + length_s
        yield start, until


def longest_gap_s(waits: Sequence[Span], audible: Sequence[Span], since: float) -> float:
    """Return the longest time after `since` in which a caller waited and heard nothing, in seconds.

    Args:
        waits: Spans in which the caller waits for an answer or hears one.
        audible: Spans in which audio plays, in order.
        since: Time of the fault.
    """
    longest = 0.0
    for start, end in waits:
        silent_since = max(start, since)
        for begin, stop in audible:
            if stop <= silent_since or begin >= end:
                continue
            longest = max(longest, begin - silent_since)
            silent_since = max(silent_since, stop)
        longest = max(longest, end - silent_since)
    return longest


def slowest_sound_s(waits: Sequence[Span], audible: Sequence[Span], since: float) -> float:
    """Return the longest time from the beginning of a wait, or from `since`, to the next sound, in seconds.

    The arguments are those of `longest_gap_s`. Silence after the first sound of a wait does not count.
    """
    slowest = 0.0
    for start, end in waits:
        begin = max(start, since)
        sounds = [max(begin, first) for first, stop in audible if stop > begin and first < end]
        if begin < end:
            slowest = max(slowest, min([*sounds, end]) - begin)
    return slowest


@dataclass
class LiveCall:
    """One caller. Keep `run` running.

    Attributes:
        waits: Spans in which the caller waited for an answer. The last one is open while it is in progress.
        completed: Number of complete answers.
        failed: Number of answers that ended otherwise, such as with an apology that nothing followed.
        cut_at: Time at which the connection was lost; None while it is there.
    """

    url: str
    question: bytes
    waits: list[Span] = field(default_factory=list)
    completed: int = 0
    failed: int = 0
    cut_at: float | None = None
    asked_at: float | None = None
    caller: WireCaller | None = None

    async def run(self) -> None:
        """Call, ask, listen and ask again, until cancelled or cut off."""
        with suppress(ConnectionClosed, OSError, InvalidStatus, TimeoutError, ExceptionGroup):
            async with calling(self.url) as caller:
                self.caller = caller
                asking = asyncio.create_task(self._ask(caller))
                closed = asyncio.create_task(caller.closed())
                try:
                    await asyncio.wait({asking, closed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    asking.cancel()
                    closed.cancel()
                    await asyncio.wait({asking, closed})
        self.cut_at = time.monotonic()

    async def _ask(self, caller: WireCaller) -> None:
        while True:
            caller.say(self.question)
            await caller.spoken()
            self.asked_at = time.monotonic()
            done = await caller.until("response.done", self.completed + self.failed + 1, timeout_s=600)
            if done["response"]["status"] == "completed":
                self.completed += 1
            else:
                self.failed += 1
            *_, (_, heard_until) = [(0.0, time.monotonic()), *playing(self._deltas())]
            await asyncio.sleep(max(0.0, heard_until - time.monotonic()))
            self.waits.append((self.asked_at, time.monotonic()))
            self.asked_at = None
            await asyncio.sleep(PAUSE_S)

    def silence_s(self, since: float, now: float) -> float:
        """Return the longest silence from `since` until now while the caller waited."""
        return longest_gap_s(self._waits(now), list(playing(self._deltas())), since)

    def sound_s(self, since: float, now: float) -> float:
        """Return the longest time from a question, or from `since`, to the next sound, an apology included."""
        return slowest_sound_s(self._waits(now), list(playing(self._deltas())), since)

    def _waits(self, now: float) -> list[Span]:
        return [*self.waits, *([(self.asked_at, now)] if self.asked_at is not None else [])]

    def _deltas(self) -> Iterator[tuple[float, float]]:
        assert self.caller is not None
        for at, event in self.caller.of("response.output_audio.delta"):
            yield at, len(base64.b64decode(event["delta"])) / SAMPLE_BYTES / WIRE_RATE


async def ask_and_resume(caller: SurvivingCaller) -> None:
    """Ask one question after the other on a call that resumes by itself, until cancelled."""
    calling = asyncio.create_task(caller.run())
    try:
        await caller.until("session.created")
        while True:
            answered = len(caller.of("response.done"))
            with suppress(ConnectionClosed):  # the call resumes, and answers the question if it has arrived
                await caller.ask("What is the capital of France?")
                await caller.until("response.done", answered + 1, timeout_s=10)
            await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        await asyncio.Event().wait()  # no answer came: nothing more is asked
    finally:
        calling.cancel()
        await asyncio.wait({calling})


@dataclass
class Newcomers:
    """New callers, one every ARRIVAL_S seconds. Keep `run` running.

    Attributes:
        attempts: For each call in the order of their beginnings: when it began, and when its answer was heard or None.
        reasons: Why calls were not answered, with the number of calls.
    """

    url: str
    attempts: list[tuple[float, float | None]] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Start new calls until cancelled. Calls that have begun are then finished."""
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    group.create_task(self._call(len(self.attempts)))
                    self.attempts.append((time.monotonic(), None))
                    await asyncio.sleep(ARRIVAL_S)
            except asyncio.CancelledError:
                pass

    def recovery_s(self, since: float) -> float | None:
        """Return the seconds from `since` until new calls are answered again: 0 if all are, None if the last is not."""
        after = [(began, heard) for began, heard in self.attempts if began >= since]
        failed = [number for number, (_, heard) in enumerate(after) if heard is None]
        if not failed:
            return 0.0
        if failed[-1] == len(after) - 1:
            return None
        return (after[failed[-1] + 1][1] or 0.0) - since

    async def _call(self, number: int) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await first_audio(self.url)
            self.attempts[number] = (began, time.monotonic())
        except InvalidStatus as refused:
            self._note(f"HTTP {refused.response.status_code}")
        except TimeoutError:
            self._note("no answer")
        except ConnectionRefusedError:
            self._note("connection refused")
        except (ConnectionClosed, OSError, websockets.InvalidMessage):
            self._note("cut off")

    def _note(self, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


async def first_audio(url: str) -> None:
    """Call, ask a question in text, and return when the first audio of the answer has arrived."""
    async with websockets.connect(realtime_url(url), close_timeout=0.1) as socket:
        running = WireCaller(socket)
        hearing = asyncio.create_task(running.hear())
        try:
            content = [{"type": "input_text", "text": "What is the capital of France?"}]
            await running.send(
                type="conversation.item.create", item={"type": "message", "role": "user", "content": content}
            )
            await running.send(type="response.create")
            waiting = asyncio.create_task(running.until("response.output_audio.delta"))
            await asyncio.wait({waiting, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                raise ConnectionResetError("the server ended the connection")
        finally:
            hearing.cancel()
            await asyncio.wait({hearing})
