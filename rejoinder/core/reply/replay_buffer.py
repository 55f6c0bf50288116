"""Replay buffer: the audio of a reply on its way to the client, with the most recent part kept for replay.

Audio is added at the end and taken from the front. When the caller interrupts a reply, the client drops the audio that
it has not played. If the reply resumes, the dropped audio is sent again, from the sample after the last one played. So
the buffer keeps as much sent audio as a client can drop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from rejoinder.core.audio.pcm import SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class ReplayPiece:
    """Audio of one segment or clip, as 16-bit PCM.

    Attributes:
        words: The text of the segment or clip if the audio is its beginning. Empty for the rest of its audio, and for
            replayed audio.
        pcm: The audio.
        answers: True if the audio is new audio of the answer. False for prepared clips and for replayed audio.
    """

    words: str
    pcm: bytes
    answers: bool = True

    @property
    def samples(self) -> int:
        """Length in samples."""
        return len(self.pcm) // SAMPLE_BYTES


class ReplayBuffer:
    """Queue of a reply's audio whose most recently taken samples can be taken again. Not thread-safe.

    Positions are sample indices since the start of the reply. The last `keep` samples taken are kept for replay.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._new: deque[ReplayPiece] = deque()
        self._new_samples = 0
        self._taken = bytearray()
        self._reached = 0
        self.position = 0
        """Index of the next sample to take."""

    @property
    def waiting(self) -> int:
        """Number of samples that can be taken now."""
        return self._new_samples + self._reached - self.position

    @property
    def oldest(self) -> int:
        """Index of the oldest sample that is kept for replay, so that `wind` can go back to it."""
        return self._reached - len(self._taken) // SAMPLE_BYTES

    def add(self, piece: ReplayPiece) -> None:
        """Add audio at the end."""
        self._new.append(piece)
        self._new_samples += piece.samples

    def take(self, limit: int) -> ReplayPiece:
        """Take at least one and at most `limit` samples from the front. Some samples must be waiting.

        The piece never contains the start of a second segment or clip.
        """
        if self.position < self._reached:
            return self._take_again(limit)
        first = self._new.popleft()
        pcm = first.pcm
        while len(pcm) < limit * SAMPLE_BYTES and self._new and not self._new[0].words:
            pcm += self._new.popleft().pcm
        piece = ReplayPiece(first.words, pcm[: limit * SAMPLE_BYTES], first.answers)
        if rest := pcm[limit * SAMPLE_BYTES :]:
            self._new.appendleft(ReplayPiece("", rest, first.answers))
        self._new_samples -= piece.samples
        self.position = self._reached = self._reached + piece.samples
        self._taken += piece.pcm
        del self._taken[: max(0, len(self._taken) - self._keep * SAMPLE_BYTES)]
        return piece

    def _take_again(self, limit: int) -> ReplayPiece:
        """Take at most `limit` samples of the audio that is kept for replay, and advance the position."""
        start = (self.position - self.oldest) * SAMPLE_BYTES
        pcm = bytes(self._taken[start : start + limit * SAMPLE_BYTES])
        self.position += len(pcm) // SAMPLE_BYTES
        return ReplayPiece("", pcm, answers=False)

    def wind(self, position: int) -> None:
        """Set the index of the next sample to take, so that audio taken before is taken again.

        Args:
            position: Index between `oldest` and the end of the audio taken so far.

        Raises:
            ValueError: The index is not in this range.
        """
        if not self.oldest <= position <= self._reached:
            raise ValueError(
                f"sample {position} is not in the replay buffer, which holds {self.oldest} to {self._reached}"
            )
        self.position = position

    def clear(self) -> None:
        """Drop all audio: the audio not taken yet, and the audio kept for replay."""
        self._new.clear()
        self._new_samples = 0
        self._taken.clear()
        self.position = self._reached
