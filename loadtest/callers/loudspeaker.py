"""A simulated loudspeaker: it computes which audio of a reply is played at which time.

Playback starts with the first received audio and runs in real time. It stalls while no audio is left and continues with
the next audio, so every chunk has its own playback time. A flush drops the audio that has not been played. Audio that
arrives after a flush is played normally, because the server resumes a reply that only a noise interrupted.
"""

from __future__ import annotations

from dataclasses import dataclass

from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE, first_audible, pcm16_to_float


@dataclass(frozen=True, slots=True)
class PlayedChunk:
    """A chunk of audio and its playback time.

    Attributes:
        at: Time at which the first sample is played, in seconds on the client's clock.
        pcm: 24 kHz mono 16-bit PCM.
    """

    at: float
    pcm: bytes


class Loudspeaker:
    """Playback of one reply. All times are in seconds on the client's clock, all audio is 24 kHz 16-bit PCM.

    Args:
        free_at: Time at which playback of an earlier reply ends. Playback of this reply does not start before.
    """

    def __init__(self, free_at: float = 0.0) -> None:
        self._chunks: list[PlayedChunk] = []
        self._ends_at = free_at

    def receive(self, pcm: bytes, now: float) -> None:
        """Queue audio (24 kHz 16-bit PCM) that arrived at `now`, in seconds on the client's clock."""
        if pcm:
            at = max(now, self._ends_at)
            self._chunks.append(PlayedChunk(at, pcm))
            self._ends_at = at + _seconds(pcm)

    def flush(self, now: float) -> None:
        """Stop playback at `now`, in seconds on the client's clock, and drop the audio that has not been played."""
        lengths = [(chunk, round((now - chunk.at) * WIRE_RATE) * SAMPLE_BYTES) for chunk in self._chunks]
        self._chunks = [PlayedChunk(chunk.at, chunk.pcm[:length]) for chunk, length in lengths if length > 0]
        self._ends_at = min(self._ends_at, now)

    @property
    def began_at(self) -> float | None:
        """Time at which the first sample is played, or None if no audio was received."""
        return self._chunks[0].at if self._chunks else None

    @property
    def ends_at(self) -> float:
        """Time at which playback of all received audio ends or was stopped by a flush. `free_at` without any audio."""
        return self._ends_at

    def playing(self, now: float) -> bool:
        """Return True if audio is left to play at `now`, in seconds on the client's clock."""
        return bool(self._chunks) and now < self.ends_at

    def played_s(self, now: float) -> float:
        """Return the seconds of audio that have been played by `now`, a time in seconds on the client's clock."""
        return sum(min(max(0.0, now - chunk.at), _seconds(chunk.pcm)) for chunk in self._chunks)

    def audible_at(self, from_s: float = 0.0) -> float | None:
        """Return the time at which the first audible sample is played, or None if there is none.

        Args:
            from_s: Position in the audio, in seconds, before which samples are ignored.
        """
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
    def received_s(self) -> float:
        """Length in seconds of all received audio, without the parts that a flush has dropped."""
        return sum(_seconds(chunk.pcm) for chunk in self._chunks)

    @property
    def received(self) -> bytes:
        """All received audio, without the parts that a flush has dropped."""
        return b"".join(chunk.pcm for chunk in self._chunks)

    def heard(self) -> list[PlayedChunk]:
        """Return the chunks of audio that have been or will be played.

        A chunk that a flush cut short has only its played part. Chunks that a flush dropped whole are missing.
        """
        return list(self._chunks)


def _seconds(pcm: bytes) -> float:
    return len(pcm) / SAMPLE_BYTES / WIRE_RATE
