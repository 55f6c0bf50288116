"""What the Python drivers share: a microphone that plays questions, and observations as JSON lines.

A driver is started with the server's URL (ws://HOST:PORT/v1) and a folder with the questions as 24 kHz PCM files:
time, weather, story, stop, poem, hum and memory. It holds one conversation and prints what its client shows to a
program:

    {"kind": "ready"}                        the client is loaded; the driver waits for a line on its standard input
    {"kind": "user", "text": ...}            words of the caller
    {"kind": "agent", "text": ...}           words of a reply
    {"kind": "audio", "bytes": ...}          audio to play
    {"kind": "stopped"}                      the client stops what it plays
    {"kind": "tool", "name": ..., "arguments": {...}}
    {"kind": "hummed"}                       the caller says "mm-hmm" over the reply
    {"kind": "asked", "question": ...}       a question begins
    {"kind": "cut"}                          asks the test to cut the connection
    {"kind": "error", "text": ...}
    {"kind": "end"}                          the conversation is over
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FRAME = 960
"""Bytes of 20 ms of 24 kHz PCM."""
RESULT = "sunny, 21 degrees"


class Observer:
    """Prints observations, and waits until some were made.

    Attributes:
        seen: All observations so far.
    """

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def tell(self, kind: str, **fields: Any) -> None:
        """Print an observation. `at` is its time in seconds."""
        line = {"kind": kind, "at": time.monotonic()} | fields
        self.seen.append(line)
        print(json.dumps(line), flush=True)

    def since_question(self, kind: str) -> list[dict[str, Any]]:
        """Return the observations of a kind that were made after the last question began.

        Audio and words of a reply that the client has stopped are not among them.
        """
        found: list[dict[str, Any]] = []
        for line in self.seen:
            if line["kind"] == "asked" or (line["kind"] == "stopped" and kind != "stopped"):
                found.clear()
            elif line["kind"] == kind:
                found.append(line)
        return found

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition is true, for at most 20 s; then print an error and end the program."""
        try:
            async with asyncio.timeout(20):
                while not condition():  # noqa: ASYNC110  # clients report through callbacks of many kinds
                    await asyncio.sleep(0.01)
        except TimeoutError:
            self.tell("error", text=f"waited in vain for {what}")
            os._exit(1)  # whatever else still runs


class Microphone:
    """A microphone: frames of 20 ms in real time, silence if nobody asks.

    It is made when the client has been imported, which takes seconds of a core. Nobody's conversation begins until all
    clients are ready, so that none is disturbed by this.
    """

    def __init__(self, observer: Observer) -> None:
        observer.tell("ready")
        sys.stdin.readline()
        self.url, self._folder = sys.argv[1], Path(sys.argv[2])
        self._observer = observer
        self._left = b""
        self._next_at = time.monotonic()

    def ask(self, question: str) -> None:
        """Say a question."""
        self._observer.tell("asked", question=question)
        self._left = (self._folder / f"{question}.pcm").read_bytes()

    def hum(self) -> None:
        """Say "mm-hmm", which asks nothing."""
        self._observer.tell("hummed")
        self._left = (self._folder / "hum.pcm").read_bytes()

    async def frame(self) -> bytes:
        """Return the next frame when it is due."""
        self._next_at = max(self._next_at + 0.02, time.monotonic() - 0.1)
        await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))
        frame, self._left = self._left[:FRAME], self._left[FRAME:]
        return frame.ljust(FRAME, b"\0")


async def converse(observer: Observer, microphone: Microphone) -> None:
    """Hold the common part of the conversation: a turn, a tool call, a barge-in, and "mm-hmm" over a reply."""

    def answered() -> bool:
        return bool(observer.since_question("audio") and observer.since_question("agent"))

    for question in ("time", "weather"):
        microphone.ask(question)
        await observer.until(answered, f"the answer to {question}")
        await settled(observer)
    microphone.ask("story")
    await observer.until(lambda: heard_s(observer) > 1.0, "a second of the story")
    microphone.ask("stop")
    await observer.until(lambda: bool(observer.since_question("stopped")), "the end of the story")
    await observer.until(answered, "the answer to stop")
    await settled(observer)
    microphone.ask("poem")
    await observer.until(lambda: heard_s(observer) > 1.0, "a second of the poem")
    microphone.hum()
    await observer.until(answered, "the rest of the poem")
    await settled(observer)


def heard_s(observer: Observer) -> float:
    """Return the seconds for which audio has been arriving since the last question."""
    audio = observer.since_question("audio")
    return time.monotonic() - float(audio[0]["at"]) if audio else 0.0


async def settled(observer: Observer) -> None:
    """Wait until the last answer has been played and half a second of silence has passed."""

    def over() -> bool:
        audio = observer.since_question("audio")
        seconds = sum(line["bytes"] for line in audio) / 48_000
        return bool(audio) and time.monotonic() > float(audio[0]["at"]) + seconds + 0.5

    await observer.until(over, "the end of the answer")
