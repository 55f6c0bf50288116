"""The caller's microphone: one endless stream of 20 ms frames, silent except where a clip is spoken.

Frame k leaves at `began_at` + 20 ms * k, whatever happened before (deadlines are never moved: load-facts section 2),
so each sample has one scheduled instant, from which latency is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.scenario.clips import Clip
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE

FRAME_MS = 20
FRAME_SAMPLES = WIRE_RATE * FRAME_MS // 1000
FRAME_BYTES = FRAME_SAMPLES * SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class SpokenClip:
    """A clip and the sample of the stream with which it begins."""

    clip: Clip
    start: int


class Microphone:
    """A stream that begins when its first frame is due."""

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.sent = bytearray()
        self._spoken: SpokenClip | None = None
        self._frames = 0

    @property
    def due(self) -> float:
        """The deadline of the next frame."""
        return self.began_at + self._frames * FRAME_MS / 1000

    def speak(self, clip: Clip) -> SpokenClip:
        """Begin a clip with the next frame; what is left of the clip before is not spoken."""
        self._spoken = SpokenClip(clip, self._frames * FRAME_SAMPLES)
        return self._spoken

    def frame(self) -> bytes:
        """The next 20 ms of PCM; all of them together are `sent`."""
        pcm = b""
        if self._spoken:
            offset = (self._frames * FRAME_SAMPLES - self._spoken.start) * SAMPLE_BYTES
            pcm = self._spoken.clip.pcm[offset : offset + FRAME_BYTES]
        pcm = pcm.ljust(FRAME_BYTES, b"\0")
        self.sent += pcm
        self._frames += 1
        return pcm

    def captured(self, sample: int) -> float:
        """When a microphone hears a sample of the stream: a frame leaves when its last one was heard."""
        return self.began_at - FRAME_MS / 1000 + sample / WIRE_RATE

    def scheduled(self, sample: int) -> float:
        """When the frame that holds a sample of the stream is due."""
        return self.began_at + sample // FRAME_SAMPLES * FRAME_MS / 1000
