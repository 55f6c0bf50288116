"""The client's loudspeaker, simulated: what of a reply was heard when.

Playback begins with the first audio and runs in real time; it stands still while nothing is left to play, and goes on
with the next audio. So each received chunk has an interval in which it sounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from rejoinder.core.audio import SAMPLE_BYTES, WIRE_RATE, first_audible, pcm16_to_float


@dataclass(frozen=True, slots=True)
class Sounding:
    """A chunk of 24 kHz PCM and when its first sample sounds."""

    at: float
    pcm: bytes


class Playback:
    """One reply's audio; all times are seconds on the client's clock."""

    def __init__(self) -> None:
        self._chunks: list[Sounding] = []
        self._ends = 0.0
        self._flushed_at: float | None = None

    def receive(self, pcm: bytes, now: float) -> None:
        """Take audio that arrived now; dropped once the playback was flushed."""
        if self._flushed_at is None and pcm:
            at = max(now, self._ends)
            self._chunks.append(Sounding(at, pcm))
            self._ends = at + _seconds(pcm)

    def flush(self, now: float) -> None:
        """Silence: what has not sounded by now never will."""
        if self._flushed_at is None:
            self._flushed_at = now

    @property
    def began_at(self) -> float | None:
        """When the first sample sounded; None before any audio."""
        return self._chunks[0].at if self._chunks else None

    @property
    def ends_at(self) -> float:
        """When all that was received has sounded, or was flushed; 0 before any audio."""
        return self._ends if self._flushed_at is None else min(self._ends, self._flushed_at)

    def playing(self, now: float) -> bool:
        return now < self.ends_at

    def played_s(self, now: float) -> float:
        """Seconds of audio heard by now."""
        now = now if self._flushed_at is None else min(now, self._flushed_at)
        return sum(min(max(0.0, now - chunk.at), _seconds(chunk.pcm)) for chunk in self._chunks)

    def audible_at(self) -> float | None:
        """When the first audible sample sounded; None if none did."""
        index = first_audible(pcm16_to_float(self.received), WIRE_RATE)
        if index is None:
            return None
        for chunk in self._chunks:
            samples = len(chunk.pcm) // SAMPLE_BYTES
            if index < samples:
                at = chunk.at + index / WIRE_RATE
                return at if self._flushed_at is None or at < self._flushed_at else None
            index -= samples
        raise AssertionError("an audible sample lies inside the audio that was searched")

    @property
    def received(self) -> bytes:
        """All audio of the reply, heard or not."""
        return b"".join(chunk.pcm for chunk in self._chunks)

    def heard(self) -> list[Sounding]:
        """The chunks that sounded, the last one cut where the playback was flushed."""
        if self._flushed_at is None:
            return list(self._chunks)
        cut = [(chunk, round((self._flushed_at - chunk.at) * WIRE_RATE)) for chunk in self._chunks]
        return [Sounding(chunk.at, chunk.pcm[: samples * SAMPLE_BYTES]) for chunk, samples in cut if samples > 0]


def _seconds(pcm: bytes) -> float:
    return len(pcm) / SAMPLE_BYTES / WIRE_RATE
