"""How a caller hears one reply: a simulated playout buffer, without keeping the audio.

Playback begins when the buffer holds `buffer_s` of audio (or all of a shorter reply), runs in real time, and stands
still while nothing is left to play: an underrun, counted with its length. Only the audio up to the first audible
sample is decoded; of the rest the length is enough.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field

from rejoinder.core.audio.pcm import first_audible, pcm16_to_float
from rejoinder.core.wire.formats import AudioFormat


@dataclass(slots=True)
class BufferedReply:
    """A response as its listener has it; instants are on the caller's clock, None until they are known."""

    key: str
    item_id: str = ""
    began_at: float | None = None
    audible_at: float | None = None
    ends_at: float = 0.0
    received_s: float = 0.0
    done_at: float | None = None
    status: str = ""
    report: dict[str, object] | None = None
    cut_at: float | None = None
    underruns: int = 0
    stalled_s: float = 0.0
    # Where in the audio each delta begins, and when that sounds.
    deltas: list[tuple[float, float]] = field(default_factory=list, repr=False)

    @property
    def answered_at(self) -> float | None:
        """When the answer became audible: behind what the server says came before it (an apology, a filler)."""
        if self.report is None or "answer_from_ms" not in self.report or self.audible_at is None:
            return self.audible_at
        from_ms = self.report["answer_from_ms"]
        if not isinstance(from_ms, int | float):
            return None
        from_s = max(0.0, from_ms / 1000)
        # Half a millisecond of slack: positions are sums of lengths.
        start, at = next(pair for pair in reversed(self.deltas) if pair[0] <= from_s + 0.0005)
        return max(self.audible_at, at + from_s - start)

    @property
    def over_at(self) -> float | None:
        """When it was heard to its end, or cut; None while it may still grow, or was cancelled unheard (then the server
        may answer once more).
        """
        if self.cut_at is not None:
            return self.cut_at
        if self.status == "cancelled" and self.began_at is None:
            return None
        return None if self.done_at is None else max(self.done_at, self.ends_at)

    def sounds(self, now: float) -> bool:
        """Whether the listener hears it, or still waits for more of it."""
        return self.began_at is not None and self.began_at <= now and (self.over_at is None or self.over_at > now)

    def cut(self, now: float) -> None:
        """The listener silences it: what has not sounded never will."""
        self.received_s = self.heard_s(now)
        self.cut_at = now

    def resume(self, now: float) -> None:
        """More of it after it was cut: it goes on where it was heard last."""
        self.stalled_s += now - (self.cut_at or now)
        self.ends_at, self.cut_at = now, None

    def leave(self, now: float) -> None:
        """The listener hangs up while it sounds; a reply that stands still is not excused by that."""
        if self.began_at is not None and self.cut_at is None and self.began_at <= now < self.ends_at:
            self.cut_at = now

    def heard_s(self, now: float) -> float:
        """How much of it was heard by now."""
        if self.began_at is None:
            return 0.0
        return max(0.0, min(self.received_s, now - self.began_at - self.stalled_s))


class PlayoutBuffer:
    """Plays the deltas of one caller's replies."""

    def __init__(self, wire: AudioFormat, buffer_s: float) -> None:
        self._wire = wire
        self._buffer_s = buffer_s
        self._bytes_a_second = wire.rate * wire.sample_bytes

    def play(self, reply: BufferedReply, delta: str, now: float) -> None:
        """Audio of a reply arrived."""
        if reply.cut_at is not None:
            reply.resume(now)
        length_s = (len(delta) // 4 * 3 - delta.count("=", -2)) / self._bytes_a_second
        if reply.began_at is None:
            # The buffer fills at the wire's pace, which is faster than speech: what lacks of it is waited for.
            reply.began_at = now + max(0.0, self._buffer_s - length_s)
            reply.ends_at = reply.began_at
        elif now > reply.ends_at:
            reply.underruns += 1
            reply.stalled_s += now - reply.ends_at
            reply.ends_at = now
        if reply.audible_at is None:
            reply.audible_at = self._audible(delta, reply.ends_at)
        reply.deltas.append((reply.received_s, reply.ends_at))
        reply.ends_at += length_s
        reply.received_s += length_s

    def _audible(self, delta: str, sounds_at: float) -> float | None:
        audio = binascii.a2b_base64(delta)
        pcm = self._wire.law.decode(audio) if self._wire.law else audio
        index = first_audible(pcm16_to_float(pcm), self._wire.rate)
        return None if index is None else sounds_at + index / self._wire.rate
