"""The caller's microphone: a continuous stream of 20 ms frames, silent except while a clip plays.

Frame k is due at `began_at` + 20 ms * k. A late frame never moves the deadlines after it, so every sample has one
scheduled time. Latency is measured from that time.
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
    """A clip and its position in the stream of a microphone.

    Attributes:
        clip: The clip.
        start: Index of the sample in the stream at which the clip begins.
    """

    clip: Clip
    start: int


class Microphone:
    """Source of a caller's 20 ms frames, with the scheduled time of every sample.

    Times are in seconds on the clock of `began_at`. Positions are samples of the stream at 24 kHz.

    Attributes:
        began_at: Deadline of the first frame.
        sent: All PCM that `frame` has returned.
    """

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.sent = bytearray()
        self._spoken: SpokenClip | None = None
        self._frames = 0

    @property
    def due(self) -> float:
        """Deadline of the next frame in seconds."""
        return self.began_at + self._frames * FRAME_MS / 1000

    def speak(self, clip: Clip) -> SpokenClip:
        """Start a clip at the next frame and return its position. A clip that is still playing is cut off."""
        self._spoken = SpokenClip(clip, self._frames * FRAME_SAMPLES)
        return self._spoken

    def frame(self) -> bytes:
        """Return the next 20 ms of PCM and append them to `sent`."""
        pcm = b""
        if self._spoken:
            offset = (self._frames * FRAME_SAMPLES - self._spoken.start) * SAMPLE_BYTES
            pcm = self._spoken.clip.pcm[offset : offset + FRAME_BYTES]
        pcm = pcm.ljust(FRAME_BYTES, b"\0")
        self.sent += pcm
        self._frames += 1
        return pcm

    def captured(self, sample: int) -> float:
        """Return the time in seconds at which the microphone records sample number `sample` of the stream.

        A frame is due when its last sample has been recorded.
        """
        return self.began_at - FRAME_MS / 1000 + sample / WIRE_RATE

    def scheduled(self, sample: int) -> float:
        """Return the deadline of the frame that contains sample number `sample` of the stream.

        The deadline is in seconds on the clock of `began_at`.
        """
        return self.began_at + sample // FRAME_SAMPLES * FRAME_MS / 1000
