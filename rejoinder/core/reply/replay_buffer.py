"""A reply's audio on its way out: pieces are added at the end and taken from the front, and a stretch of what was taken
can be wound back, to be taken again.

What a listener did not hear before it flushed its buffer is sent once more, from the very sample. As much is kept for
that as a listener can lack: what lies between what was sent and what was heard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from rejoinder.core.audio.pcm import SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class ReplayPiece:
    """Audio, and the words that begin with it ("" inside a segment, and when it is taken again).

    `answers`: it is the first time that the listener gets this part of the answer (a held clip answers nothing).
    """

    words: str
    pcm: bytes
    answers: bool = True

    @property
    def samples(self) -> int:
        return len(self.pcm) // SAMPLE_BYTES


class ReplayBuffer:
    """Positions are samples since the reply's start. At least the last `keep` samples taken can be wound back."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._fresh: deque[ReplayPiece] = deque()
        self._fresh_samples = 0
        self._taken = bytearray()
        self._reached = 0
        self.position = 0
        """The sample that is taken next."""

    @property
    def waiting(self) -> int:
        """Samples that can be taken."""
        return self._fresh_samples + self._reached - self.position

    @property
    def oldest(self) -> int:
        """The first sample that it can be wound back to."""
        return self._reached - len(self._taken) // SAMPLE_BYTES

    def add(self, piece: ReplayPiece) -> None:
        """Put audio at the end."""
        self._fresh.append(piece)
        self._fresh_samples += piece.samples

    def take(self, limit: int) -> ReplayPiece:
        """At least one and at most `limit` samples from the front, never across the start of a segment or clip; there
        must be some waiting.
        """
        if self.position < self._reached:
            return self._again(limit)
        first = self._fresh.popleft()
        pcm = first.pcm
        while len(pcm) < limit * SAMPLE_BYTES and self._fresh and not self._fresh[0].words:
            pcm += self._fresh.popleft().pcm
        piece = ReplayPiece(first.words, pcm[: limit * SAMPLE_BYTES], first.answers)
        if rest := pcm[limit * SAMPLE_BYTES :]:
            self._fresh.appendleft(ReplayPiece("", rest, first.answers))
        self._fresh_samples -= piece.samples
        self.position = self._reached = self._reached + piece.samples
        self._taken += piece.pcm
        del self._taken[: max(0, len(self._taken) - self._keep * SAMPLE_BYTES)]
        return piece

    def _again(self, limit: int) -> ReplayPiece:
        start = (self.position - self.oldest) * SAMPLE_BYTES
        pcm = bytes(self._taken[start : start + limit * SAMPLE_BYTES])
        self.position += len(pcm) // SAMPLE_BYTES
        return ReplayPiece("", pcm, answers=False)

    def wind(self, position: int) -> None:
        """Go back (or forth again) to a sample between `oldest` and the last that was taken; raises ValueError for
        another.
        """
        if not self.oldest <= position <= self._reached:
            raise ValueError(f"sample {position} is not on the tape, which has {self.oldest} to {self._reached}")
        self.position = position

    def clear(self) -> None:
        """Drop all that could be taken."""
        self._fresh.clear()
        self._fresh_samples = 0
        self._taken.clear()
        self.position = self._reached
