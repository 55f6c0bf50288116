"""What a telephone has played of the agent's speech. The current time is an argument.

A telephone plays audio in the order in which it gets it, from a buffer that nobody can look into. After each piece of
audio it gets a mark, and returns the mark when it has played everything before it. A mark is therefore the true
position. Between two marks the position is the time since the last one came back, and never more than what was sent.
The way of a mark through the network makes the position late, so a caller is never said to have heard too much.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from rejoinder.core.audio.pcm import TELEPHONE_RATE

REMEMBERED = 16
"""Number of items whose audio may still continue."""


@dataclass(frozen=True, slots=True)
class PlayedItem:
    """How much of a conversation item the caller has heard.

    Attributes:
        item_id: Id of the item.
        ms: Milliseconds of its audio.
    """

    item_id: str
    ms: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Piece of audio on its way: its mark, its item, and its first and last position there in samples."""

    mark: str
    item_id: str
    start: int
    end: int


class PhonePlayout:
    """Tracker of the audio that one telephone has got and played. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._coming: deque[_Piece] = deque()
        # Number of samples of each item that the telephone has played or will play.
        self._sent: OrderedDict[str, int] = OrderedDict()
        self._marks = 0
        # Time since which the first piece of `_coming` is being played.
        self._since = 0.0
        self._last = PlayedItem("", 0)

    @property
    def pending(self) -> bool:
        """True while the telephone has audio that it has not played."""
        return bool(self._coming)

    def sent(self, item_id: str, samples: int, now: float) -> str:
        """Record that the next `samples` samples (8 kHz) of an item are sent now. Return the name of their mark."""
        if not self._coming:
            self._since = now
        start = self._sent.get(item_id, 0)
        self._marks += 1
        piece = _Piece(f"p{self._marks}", item_id, start, start + samples)
        self._coming.append(piece)
        self._sent[item_id] = piece.end
        self._sent.move_to_end(item_id)
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        return piece.mark

    def returned(self, mark: str, now: float) -> None:
        """Record that the telephone has returned a mark. Marks of audio that `cut` has dropped change nothing."""
        if all(piece.mark != mark for piece in self._coming):
            return
        while self._coming:
            piece = self._coming.popleft()
            self._last = PlayedItem(piece.item_id, _ms(piece.end))
            if piece.mark == mark:
                break
        self._since = now

    def heard(self, now: float) -> PlayedItem:
        """Return how much was played of the item that was played last. Its id is "" if nothing was played."""
        if not self._coming:
            return self._last
        piece = self._coming[0]
        played = min(piece.end - piece.start, max(0, int((now - self._since) * TELEPHONE_RATE)))
        return PlayedItem(piece.item_id, _ms(piece.start + played))

    def received(self) -> PlayedItem:
        """Return how much of the newest item the telephone has got, played or not. Its id is "" if it got nothing."""
        item_id = next(reversed(self._sent), "")
        return PlayedItem(item_id, _ms(self._sent.get(item_id, 0)))

    def cut(self, now: float) -> tuple[PlayedItem, ...]:
        """Record that the telephone drops the audio that it has not played.

        Return how much was played of each item that loses audio. Its next audio continues there.
        """
        if not self._coming:
            return ()
        current = self.heard(now)
        lost = {current.item_id: current.ms}
        for piece in self._coming:
            lost.setdefault(piece.item_id, _ms(piece.start))
        self._coming.clear()
        for item_id, ms in lost.items():
            self._sent[item_id] = ms * TELEPHONE_RATE // 1000
        self._last = current
        return tuple(PlayedItem(item_id, ms) for item_id, ms in lost.items())


def _ms(samples: int) -> int:
    return samples * 1000 // TELEPHONE_RATE
