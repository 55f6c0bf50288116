"""What was sent to the listener and what was heard: playout without a clock.

Synthesis is faster than speech, so audio waits here and is released a little ahead of the listener's position: a
small lead survives jitter, and whatever is not yet sent can still be taken back when the caller interrupts.

The listener's position is a model: playback starts when the first sample is sent, runs in real time, and stands
still while nothing is left to play (an underrun). It is kept as an anchor, (time, samples played until then), which
is renewed at every send, because only a send can end an underrun:

    played(now) = min(sent, anchor_played + (now - anchor_time) * rate)

What was heard follows from the position. A reply is a row of segments, each a text and its audio. Synthesis tells
no word times, so a segment's words share its audio by their length in characters, and a word counts only when its
whole share was played. While a segment is still being synthesized its length is not known and is taken to be what
speech usually needs, so that its first chunk does not pass for the whole sentence; call `end` when it is complete
(`begin` of the next does it too).

A listener who was interrupted by a noise flushes what it holds: `flush` takes the position back to what was heard, and
the rest is queued again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rejoinder.core.audio.pcm import WIRE_RATE

CHARACTERS_PER_S = 15.0
"""English speech, for a segment whose audio is not complete: 150 words a minute at six characters with the space."""


@dataclass(slots=True)
class _Segment:
    words: tuple[str, ...]
    start: int
    samples: int = 0


class Playout:
    """The playout of one reply; all times are the caller's `now`, in seconds on one monotonic clock."""

    def __init__(self, lead_s: float, rate: int = WIRE_RATE) -> None:
        self._rate = rate
        self._lead = max(1, math.floor(lead_s * rate))
        self._segments: list[_Segment] = []
        self._complete = 0
        self._added = 0
        self._sent = 0
        self._reached = 0
        self._anchor_time = 0.0
        self._anchor_played = 0.0

    def begin(self, text: str) -> None:
        """Start a segment: the audio added from now on speaks `text`. The one before is complete."""
        self.end()
        self._segments.append(_Segment(tuple(text.split()), self._added))

    def end(self) -> None:
        """All audio of the segments begun so far has been added, so their length is final."""
        self._complete = len(self._segments)

    def add(self, samples: int) -> None:
        """Enqueue audio of the current segment (before any `begin`: of no text)."""
        if self._segments:
            self._segments[-1].samples += samples
        self._added += samples

    def wait_s(self, samples: int, now: float) -> float:
        """How long until so many more may be sent: until they fit into the lead, or the listener has heard the rest."""
        ahead = self._sent - math.floor(self._played(now))
        return max(0, min(ahead, ahead + samples - self._lead)) / self._rate

    def sent(self, samples: int, now: float) -> None:
        """Record that queued audio went out; raises ValueError if there was not as much in the queue."""
        if not 0 <= samples <= self._queued:
            raise ValueError(f"{samples} samples sent, but {self._queued} are queued")
        self._anchor_played = self._played(now)
        self._anchor_time = max(now, self._anchor_time)
        self._sent += samples
        self._reached = max(self._reached, self._sent)

    def flush(self, now: float, heard: int | None = None) -> int:
        """The listener dropped all that it had not heard: it stands still at the sample that is returned, which is to
        be sent next. `heard` is where it says that it stands (never beyond what it was ever sent), else the model's.
        """
        at = math.floor(self._played(now)) if heard is None else min(max(heard, 0), self._reached)
        self._anchor_played, self._anchor_time, self._sent = float(at), max(now, self._anchor_time), at
        return at

    def words_between(self, start_s: float, end_s: float) -> str:
        """The words of which any part lies between two positions, joined by single spaces."""
        before = self.heard_text(start_s).split()
        until = self.heard_text(end_s).split()
        words = [word for segment in self._segments for word in segment.words]
        return " ".join(words[len(before) : len(until) + 1])

    def position_s(self, now: float) -> float:
        """How much audio the listener has heard: never runs back, never beyond what was sent."""
        return self._played(now) / self._rate

    @property
    def reached_s(self) -> float:
        """How much audio was ever sent, heard or flushed."""
        return self._reached / self._rate

    def left_s(self, now: float) -> float:
        """How much of the audio made so far is still to be heard."""
        return (self._added - self._played(now)) / self._rate

    def finish(self, now: float) -> float:
        """When all that was sent will have been played; `now` if it has been."""
        return now + (self._sent - self._played(now)) / self._rate

    def heard_text(self, position_s: float) -> str:
        """The words played in full when the listener was at `position_s`, joined by single spaces.

        The words of a segment that is complete without any audio (its synthesis failed) were never heard.
        """
        position = position_s * self._rate
        heard: list[str] = []
        for index, segment in enumerate(self._segments):
            length = self._length(segment, complete=index < self._complete)
            if not length:
                continue
            # Half a sample of slack: a position that went through seconds is not exact.
            heard += _words_within(segment.words, (position - segment.start + 0.5) / length)
            if position < segment.start + length:
                break
        return " ".join(heard)

    @property
    def _queued(self) -> int:
        return self._added - self._sent

    def _played(self, now: float) -> float:
        since = max(0.0, now - self._anchor_time)
        return min(float(self._sent), self._anchor_played + since * self._rate)

    def _length(self, segment: _Segment, *, complete: bool) -> float:
        if complete:
            return segment.samples
        usual = sum(len(word) + 1 for word in segment.words) / CHARACTERS_PER_S * self._rate
        return max(segment.samples, usual)


def _words_within(words: tuple[str, ...], share: float) -> tuple[str, ...]:
    """The words that end within `share` of the characters, a space counted to the word before it."""
    limit = share * sum(len(word) + 1 for word in words)
    spoken = 0
    for index, word in enumerate(words):
        spoken += len(word) + 1
        if spoken > limit:
            return words[:index]
    return words
