"""Output buffer of a call whose audio the server plays in real time: 20 ms frames at the time when each is due.

Over WebRTC the client has no buffer that it could drop: what was sent is heard. So the server keeps the audio until its
time has come, and knows which sample was sent last. A barge-in drops the rest. The current time is an argument.

Frames are `FRAME_S` apart, counted from the first one after a pause. If the sender was late by more than `MAX_LATE_S`,
the rest of the audio is later by as much: a burst of frames would only fill the client's jitter buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE

FRAME_S = 0.02
FRAME_SAMPLES = round(FRAME_S * WIRE_RATE)
FRAME_BYTES = FRAME_SAMPLES * SAMPLE_BYTES
SILENCE = bytes(FRAME_BYTES)
MAX_LATE_S = 0.1
"""Seconds by which frames may be late and still catch up."""
TAIL_FRAMES = 12
"""Frames of silence after the last audio: 240 ms, in which the client's decoder fades into silence."""

Change = Literal["started", "stopped", "cleared"]


@dataclass(slots=True)
class _Part:
    """Audio of one response that was not sent yet: 16-bit PCM at 24 kHz, from the byte `at` on."""

    response_id: str
    pcm: bytes
    at: int = 0


@dataclass(frozen=True, slots=True)
class OutputFrame:
    """A frame to send now.

    Attributes:
        pcm: 20 ms of 16-bit PCM at 24 kHz.
        number: Number of 20 ms steps since the call began. Numbers are left out while nothing is sent.
        silent: True if the frame contains no audio of a response.
    """

    pcm: bytes
    number: int
    silent: bool


class OutputBuffer:
    """Audio that waits until the caller may hear it. Not thread-safe.

    `changed` is called with "started" when the first audio of a response is sent, "stopped" when all of it was sent,
    and "cleared" if it was dropped, each time with the id of the response.
    """

    def __init__(self, max_s: float, changed: Callable[[Change, str], None], *, continuous: bool = False) -> None:
        """Create an empty buffer.

        Args:
            max_s: Maximum length of the audio that waits, in seconds. Further audio is dropped.
            changed: Called when the playback of a response starts or ends.
            continuous: True to send silence all the time; False to send nothing while there is no audio.
        """
        self._max_bytes = round(max_s * WIRE_RATE) * SAMPLE_BYTES
        self._changed = changed
        self._continuous = continuous
        self._parts: deque[_Part] = deque()
        self._waiting_bytes = 0
        self._ended: set[str] = set()
        self._playing = ""
        # Number and time of the next frame; None while nothing is sent.
        self._due: float | None = None
        self._began: float | None = None
        self._number = 0
        self._tail = 0
        self.dropped_samples = 0

    @property
    def waiting_s(self) -> float:
        """Length of the audio that was not sent yet, in seconds."""
        return self._waiting_bytes / SAMPLE_BYTES / WIRE_RATE

    @property
    def playing(self) -> str:
        """Id of the response that is being played, "" while nothing is played."""
        return self._playing

    def add(self, response_id: str, pcm: bytes) -> None:
        """Append 16-bit PCM at 24 kHz of a response. What exceeds the maximum is dropped and counted."""
        room = max(0, self._max_bytes - self._waiting_bytes) // SAMPLE_BYTES * SAMPLE_BYTES
        self.dropped_samples += max(0, len(pcm) - room) // SAMPLE_BYTES
        if pcm := pcm[:room]:
            self._parts.append(_Part(response_id, pcm))
            self._waiting_bytes += len(pcm)

    def end(self, response_id: str) -> None:
        """Record that a response has no more audio. It is "stopped" once all of it was sent."""
        if self._playing == response_id or any(part.response_id == response_id for part in self._parts):
            self._ended.add(response_id)
            self._finish()

    def clear(self, response_id: str | None = None) -> int:
        """Drop the audio of a response that was not sent, or of all responses. Return the number of samples dropped.

        The response that is being played is "cleared", even if all its audio so far was sent.
        """
        kept = deque(part for part in self._parts if response_id not in (None, part.response_id))
        left = sum(len(part.pcm) - part.at for part in kept)
        dropped = (self._waiting_bytes - left) // SAMPLE_BYTES
        self._parts, self._waiting_bytes = kept, left
        if self._playing and response_id in (None, self._playing):
            cleared, self._playing = self._playing, ""
            self._ended.discard(cleared)
            self._changed("cleared", cleared)
        return dropped

    def wait_s(self, now: float) -> float | None:
        """Return the seconds until the next frame is due; None if nothing is sent until audio is added."""
        if self._due is not None:
            return max(0.0, self._due - now)
        return 0.0 if self._parts or self._continuous else None

    def take(self, now: float) -> OutputFrame | None:
        """Return the frame that is due now, None if nothing is to be sent."""
        if self.wait_s(now) != 0:
            return None
        if self._began is None:
            self._began = now
        if self._due is None or now - self._due > MAX_LATE_S:
            # The number says how much time has passed for the client, which plays silence meanwhile.
            self._number = max(self._number, round((now - self._began) / FRAME_S))
            self._due = now
        pcm = self._pull()
        frame = OutputFrame(pcm or SILENCE, self._number, silent=not pcm)
        self._number += 1
        self._due += FRAME_S
        self._tail = TAIL_FRAMES if pcm else self._tail - 1
        if self._tail <= 0 and not self._playing and not self._parts and not self._continuous:
            self._due = None
        self._finish()
        return frame

    def _pull(self) -> bytes:
        """Return the next 20 ms of the oldest response, filled up with silence; empty if no audio waits."""
        if not self._parts:
            return b""
        response_id = self._parts[0].response_id
        if response_id != self._playing:
            if self._playing:
                self._stop()
            self._playing = response_id
            self._changed("started", response_id)
        pcm = bytearray()
        while self._parts and self._parts[0].response_id == response_id and len(pcm) < FRAME_BYTES:
            part = self._parts[0]
            piece = part.pcm[part.at : part.at + FRAME_BYTES - len(pcm)]
            part.at += len(piece)
            pcm += piece
            if part.at >= len(part.pcm):
                self._parts.popleft()
        self._waiting_bytes -= len(pcm)
        return bytes(pcm.ljust(FRAME_BYTES, b"\0"))

    def _finish(self) -> None:
        """End the response that is being played if it has ended and all its audio was sent."""
        if self._playing in self._ended and not any(part.response_id == self._playing for part in self._parts):
            self._stop()

    def _stop(self) -> None:
        stopped, self._playing = self._playing, ""
        self._ended.discard(stopped)
        self._changed("stopped", stopped)
