"""Playout: what has been sent of a reply, and what the caller has heard. The current time is an argument.

Synthesis is faster than speech, so audio is queued and sent a little ahead of the position that the caller hears. This
lead absorbs jitter. Audio that is not sent yet can still be cancelled when the caller interrupts.

The caller's position is estimated by a model of the client's player. Playback starts when the first sample is sent,
runs in real time, and stops while there is nothing to play (an underrun). The model stores an anchor: a time, and the
number of samples played until this time. Every send renews the anchor, because only a send can end an underrun:

    played(now) = min(sent, anchor_played + (now - anchor_time) * rate)

The text that was heard follows from the position. A reply is a sequence of segments, each with its text and audio.
Synthesis gives no word times. The words of a segment therefore share its audio in proportion to the characters that are
spoken for them ("$5" has those of "five dollars"). A word counts only if its whole share was played. A word of which
nothing is spoken, such as an emoji, counts with the next word that is. The length of a segment is not known while it is
being synthesized. Until the segment is complete, its length is estimated at CHARACTERS_PER_S, so that its first chunk
does not count as the whole sentence. `end` marks a segment as complete, and so does `begin` of the next segment.

When a reply is paused, the client drops the audio that it has not played. `flush` moves the position back to what was
heard, and the rest is queued again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rejoinder.core.audio.pcm import WIRE_RATE
from rejoinder.core.reply.spoken.units import SpeechSegment, SpokenUnit, join_spoken, join_written, spoken_characters
from rejoinder.core.reply.timeline import Timeline

CHARACTERS_PER_S = 15.0
"""Speaking rate of English: 150 words per minute, of six characters with the space. Used for incomplete segments."""


@dataclass(slots=True)
class _Segment:
    """Segment of the reply: its words, the index of its first sample in the reply, and its number of samples."""

    units: tuple[SpokenUnit, ...]
    start: int
    samples: int = 0


class Playout:
    """Tracker of what has been sent of one reply, and of what the caller has heard. Not thread-safe.

    It sends nothing itself. Times are monotonic seconds.
    """

    def __init__(self, lead_s: float, rate: int = WIRE_RATE) -> None:
        """Create a playout that sends at most `lead_s` seconds ahead, at `rate` samples per second."""
        self._rate = rate
        self._lead = max(1, math.floor(lead_s * rate))
        self._segments: list[_Segment] = []
        self._complete = 0
        self._added = 0
        self._sent = 0
        self._reached = 0
        self._anchor_time = 0.0
        self._anchor_played = 0.0

    def begin(self, segment: SpeechSegment) -> None:
        """Start a segment, to which the audio added after this call belongs. The previous segment becomes complete."""
        self.end()
        self._segments.append(_Segment(segment.units, self._added))

    def end(self) -> None:
        """Mark all segments so far as complete, so that their lengths are final."""
        self._complete = len(self._segments)

    def add(self, samples: int) -> None:
        """Record that this many samples are queued for sending.

        They belong to the current segment. Before the first segment, they belong to no text.
        """
        if self._segments:
            self._segments[-1].samples += samples
        self._added += samples

    def wait_s(self, samples: int, now: float) -> float:
        """Return the number of seconds until `samples` more samples may be sent.

        They may be sent as soon as they fit into the lead, or as soon as the caller has heard all audio sent so far.
        """
        ahead = self._sent - math.floor(self._played(now))
        return max(0, min(ahead, ahead + samples - self._lead)) / self._rate

    def sent(self, samples: int, now: float) -> None:
        """Record that this many queued samples were sent.

        Raises:
            ValueError: Fewer samples than this are queued.
        """
        if not 0 <= samples <= self._queued:
            raise ValueError(f"{samples} samples sent, but {self._queued} are queued")
        self._anchor_played = self._played(now)
        self._anchor_time = max(now, self._anchor_time)
        self._sent += samples
        self._reached = max(self._reached, self._sent)

    def flush(self, now: float, heard: int | None = None) -> int:
        """Record that the client has dropped all audio that it had not played.

        Return the index of the next sample to send, which is the number of samples that the caller has heard. The
        caller's position stays at this sample until the next call of `sent`.

        Args:
            now: Monotonic time in seconds.
            heard: Number of samples played, as reported by the client. None: the number is estimated.
        """
        at = math.floor(self._played(now)) if heard is None else min(max(heard, 0), self._reached)
        self._anchor_played, self._anchor_time, self._sent = float(at), max(now, self._anchor_time), at
        return at

    def words_between(self, start_s: float, end_s: float) -> str:
        """Return the words that the voice speaks between two positions. Words heard only in part are included.

        Args:
            start_s: First position, in seconds of audio since the start of the reply.
            end_s: Second position, in the same unit.
        """
        first, last = len(self._heard(start_s)), len(self._heard(end_s))
        units = [unit for segment in self._segments for unit in segment.units]
        return join_spoken(unit.spoken for unit in units[first : last + 1])

    def position_s(self, now: float) -> float:
        """Return how many seconds of the reply's audio the caller has heard. It never exceeds what was sent."""
        return self._played(now) / self._rate

    @property
    def sent_samples(self) -> int:
        """Index of the next sample to send: samples sent in total, less those that a flush sends again."""
        return self._sent

    @property
    def reached_s(self) -> float:
        """How many seconds of the reply's audio were sent in total, including audio that the client dropped later."""
        return self._reached / self._rate

    def left_s(self, now: float) -> float:
        """Return how many seconds of the audio added so far the caller has not heard yet."""
        return (self._added - self._played(now)) / self._rate

    def finish(self, now: float) -> float:
        """Return the monotonic time at which the last sample sent so far is played, or `now` if it has been played."""
        return now + (self._sent - self._played(now)) / self._rate

    def heard_text(self, position_s: float) -> str:
        """Return the written words whose speech is played in full before a position, joined by single spaces.

        A complete segment without audio is left out, because its synthesis has failed.

        Args:
            position_s: Seconds of audio since the start of the reply.
        """
        return join_written(self._heard(position_s))

    def timeline(self, coming: Sequence[SpeechSegment] = ()) -> Timeline:
        """Return the words of the reply and where in the audio they end. Audio that does not exist yet is estimated.

        Args:
            coming: Segments that are to be spoken after those that have begun.
        """
        line = Timeline()
        for index, segment in enumerate(self._segments):
            length = self._length(segment, complete=index < self._complete)
            line.add(segment.units, segment.start / self._rate, length / self._rate)
        for later in coming:
            line.add(later.units, line.end_s, sum(map(spoken_characters, later.units)) / CHARACTERS_PER_S)
        return line

    def _heard(self, position_s: float) -> list[SpokenUnit]:
        position = position_s * self._rate
        heard: list[SpokenUnit] = []
        for index, segment in enumerate(self._segments):
            length = self._length(segment, complete=index < self._complete)
            if not length:
                continue
            # Half a sample of tolerance, because the conversion from seconds is not exact.
            heard += _units_within(segment.units, (position - segment.start + 0.5) / length)
            if position < segment.start + length:
                break
        return heard

    @property
    def _queued(self) -> int:
        return self._added - self._sent

    def _played(self, now: float) -> float:
        elapsed_s = max(0.0, now - self._anchor_time)
        return min(float(self._sent), self._anchor_played + elapsed_s * self._rate)

    def _length(self, segment: _Segment, *, complete: bool) -> float:
        if complete:
            return segment.samples
        estimated = sum(map(spoken_characters, segment.units)) / CHARACTERS_PER_S * self._rate
        return max(segment.samples, estimated)


def _units_within(units: tuple[SpokenUnit, ...], share: float) -> tuple[SpokenUnit, ...]:
    """Return the first units of a segment, as many as fit into `share` (0 to 1) of its spoken characters.

    A unit of which nothing is spoken is included if the next spoken unit is. At the end of a segment, it is included if
    the last spoken unit is.
    """
    limit = share * sum(map(spoken_characters, units))
    spoken, heard = 0, 0
    for index, unit in enumerate(units):
        spoken += spoken_characters(unit)
        if spoken > limit:
            return units[:heard]
        if unit.spoken:
            heard = index + 1
    return units if limit > 0 else ()
