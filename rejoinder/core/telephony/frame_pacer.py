"""Audio in frames of 20 ms in real time, for a telephone that does not buffer. The current time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from rejoinder.core.telephony.audiosocket import FRAME_BYTES

FRAME_S = 0.02
ROUNDING_S = 1e-6
"""Tolerance for sums of floating-point numbers."""
LATE_S = 0.1
"""Delay from which missed frames are not caught up: the telephone would have to drop them."""


@dataclass(slots=True)
class _Mark:
    """Mark that comes back when byte `at` of the stream was played."""

    name: str
    at: int


class PhonePacer:
    """Queue of audio with marks. `due` returns each frame at its time. Times are monotonic seconds.

    Attributes:
        waiting: Bytes that are not returned yet.
    """

    def __init__(self) -> None:
        self._audio: deque[bytes] = deque()
        self._marks: deque[_Mark] = deque()
        self.waiting = 0
        self._added = self._played = 0
        # Time at which the frame that was returned last has been played; the next one is due then.
        self._next = 0.0

    def add(self, pcm: bytes, mark: str) -> None:
        """Queue 16-bit PCM, and a mark behind it."""
        self._audio.append(pcm)
        self.waiting += len(pcm)
        self._added += len(pcm)
        self._marks.append(_Mark(mark, self._added))

    def drop(self) -> None:
        """Drop all audio that was not returned, and its marks."""
        self._audio.clear()
        self._marks.clear()
        self.waiting = 0
        self._played = self._added

    def due(self, now: float) -> tuple[list[bytes], list[str]]:
        """Return the frames to send now, and the marks whose audio was played by now.

        The last frame before a gap is filled with silence.
        """
        if now - self._next > LATE_S:
            self._next = now
        frames: list[bytes] = []
        marks = self._reached(now)
        while self.waiting and self._next <= now + ROUNDING_S:
            frame = self._take()
            frames.append(frame)
            self._next += FRAME_S
            marks += self._reached(now)
        return frames, marks

    def _reached(self, now: float) -> list[str]:
        """Return the marks up to the audio that was played: all that was returned, if its last frame has ended."""
        reached: list[str] = []
        while self._marks and self._marks[0].at <= self._played and self._next <= now + ROUNDING_S:
            reached.append(self._marks.popleft().name)
        return reached

    def _take(self) -> bytes:
        frame = b""
        while self._audio and len(frame) < FRAME_BYTES:
            piece = self._audio.popleft()
            room = FRAME_BYTES - len(frame)
            frame += piece[:room]
            if len(piece) > room:
                self._audio.appendleft(piece[room:])
        self.waiting -= len(frame)
        self._played += len(frame)
        return frame.ljust(FRAME_BYTES, b"\0")
