"""The client's loudspeaker, simulated: what of a reply was heard when.

Playback begins with the first audio and runs in real time; it stands still while nothing is left to play, and goes on
with the next audio. So each received chunk has an interval in which it sounds. A flush drops what has not sounded;
audio behind it (a reply that a noise had interrupted is resumed) sounds like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE, first_audible, pcm16_to_float


@dataclass(frozen=True, slots=True)
class PlayedChunk:
    """A chunk of 24 kHz PCM and when its first sample sounds."""

    at: float
    pcm: bytes


class Loudspeaker:
    """One reply's audio; all times are seconds on the client's clock."""

    def __init__(self) -> None:
        self._chunks: list[PlayedChunk] = []
        self._ends = 0.0

    def receive(self, pcm: bytes, now: float) -> None:
        """Take audio that arrived now."""
        if pcm:
            at = max(now, self._ends)
            self._chunks.append(PlayedChunk(at, pcm))
            self._ends = at + _seconds(pcm)

    def flush(self, now: float) -> None:
        """Silence: what has not sounded by now never will."""
        lengths = [(chunk, round((now - chunk.at) * WIRE_RATE) * SAMPLE_BYTES) for chunk in self._chunks]
        self._chunks = [PlayedChunk(chunk.at, chunk.pcm[:length]) for chunk, length in lengths if length > 0]
        self._ends = min(self._ends, now)

    @property
    def began_at(self) -> float | None:
        """When the first sample sounded; None before any audio."""
        return self._chunks[0].at if self._chunks else None

    @property
    def ends_at(self) -> float:
        """When all that was received has sounded, or was flushed; 0 before any audio."""
        return self._ends

    def playing(self, now: float) -> bool:
        return now < self.ends_at

    def played_s(self, now: float) -> float:
        """Seconds of audio heard by now."""
        return sum(min(max(0.0, now - chunk.at), _seconds(chunk.pcm)) for chunk in self._chunks)

    def audible_at(self, from_s: float = 0.0) -> float | None:
        """When the first audible sample sounded that lies `from_s` or more into the audio; None if none did."""
        start = round(from_s * WIRE_RATE)
        index = first_audible(pcm16_to_float(self.received[start * SAMPLE_BYTES :]), WIRE_RATE)
        if index is None:
            return None
        index += start
        for chunk in self._chunks:
            samples = len(chunk.pcm) // SAMPLE_BYTES
            if index < samples:
                return chunk.at + index / WIRE_RATE
            index -= samples
        raise AssertionError("an audible sample lies inside the audio that was searched")

    @property
    def received(self) -> bytes:
        """All audio of the reply that was heard or will be."""
        return b"".join(chunk.pcm for chunk in self._chunks)

    def heard(self) -> list[PlayedChunk]:
        """The chunks that sounded, cut where the playback was flushed."""
        return list(self._chunks)


def _seconds(pcm: bytes) -> float:
    return len(pcm) / SAMPLE_BYTES / WIRE_RATE
