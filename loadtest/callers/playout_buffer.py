"""A simulated playout buffer: it computes when a reply is played, without keeping the reply's audio.

Playback starts when the buffer holds `buffer_s` seconds of audio, and runs in real time. If no audio is left, playback
stalls. This is an underrun, and its length is recorded. Audio is decoded only up to the first audible sample. After
that, the length of the audio suffices.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field

from loadtest.callers.resume_state import Position
from rejoinder.core.audio.pcm import first_audible, pcm16_to_float
from rejoinder.core.wire.formats import AudioFormat


@dataclass(slots=True)
class BufferedReply:
    """One response as the caller hears it. All times are in seconds on the caller's clock.

    Attributes:
        key: Id of the response.
        item_id: Id of the conversation item with the audio.
        began_at: Time at which playback starts, or None if no audio was received.
        audible_at: Time at which the first audible sample is played, or None if there is none so far.
        ends_at: Time at which all received audio has been played.
        received_s: Received audio in seconds, without the audio that was dropped when the caller silenced the reply.
        done_at: Time of `response.done`, or None if it has not arrived.
        status: Status in `response.done`.
        report: The `rejoinder` field of `response.done`, or None.
        cut_at: Time at which the caller silenced the reply, or None.
        underruns: Number of underruns.
        stalled_s: Silence inside the reply in seconds, from underruns and from cuts after which it was resumed.
        deltas: (position in the audio, time at which it is played) of each received piece of audio, in seconds.
        item_from_s: Position at which the audio of `item_id` starts, in seconds. It is above 0 if the reply continued
            in another item after its connection was lost.
        continued: True if the reply continued on another connection.
    """

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
    deltas: list[tuple[float, float]] = field(default_factory=list, repr=False)
    item_from_s: float = 0.0
    continued: bool = False

    @property
    def answered_at(self) -> float | None:
        """Time at which the answer becomes audible, or None if no audible sample of the answer was received.

        An apology or a filler before the answer does not count. The server reports where the answer starts.
        """
        if self.report is None or "answer_from_ms" not in self.report or self.audible_at is None:
            return self.audible_at
        from_ms = self.report["answer_from_ms"]
        if not isinstance(from_ms, int | float):
            return None
        from_s = max(0.0, from_ms / 1000)
        # Find the piece of audio that contains the start of the answer. The tolerance is half a millisecond, because
        # the positions of the pieces are sums of rounded lengths.
        start, at = next(pair for pair in reversed(self.deltas) if pair[0] <= from_s + 0.0005)
        return max(self.audible_at, at + from_s - start)

    @property
    def over_at(self) -> float | None:
        """Time at which the reply was played to its end or cut. None while more audio may arrive.

        It is also None for a reply that was cancelled before any audio, because the server may then answer again.
        """
        if self.cut_at is not None:
            return self.cut_at
        if self.status == "cancelled" and self.began_at is None:
            return None
        return None if self.done_at is None else max(self.done_at, self.ends_at)

    def playing(self, now: float) -> bool:
        """Return True if `now` is between the start of playback and the end of the reply. A stall counts as playing."""
        return self.began_at is not None and self.began_at <= now and (self.over_at is None or self.over_at > now)

    def cut(self, now: float) -> None:
        """Stop the playback of the reply at `now`, in seconds on the caller's clock.

        The audio that has not been played is dropped.
        """
        self.received_s = self.played_s(now)
        self.cut_at = now

    def resume(self, now: float) -> None:
        """Continue the playback of a cut reply from the position at which it was cut.

        `now` is the time of the continuation, in seconds on the caller's clock.
        """
        self.stalled_s += now - (self.cut_at or now)
        self.ends_at, self.cut_at = now, None

    def continue_as(self, key: str, item_id: str) -> None:
        """Continue the reply as another response.

        Args:
            key: Id of the other response.
            item_id: Id of its conversation item.
        """
        self.key, self.item_id, self.item_from_s, self.continued = key, item_id, self.received_s, True

    def position(self, position_s: float) -> Position:
        """Return a position in the audio of the reply, in seconds, as one in that of `item_id`."""
        return Position.at(self.item_id, position_s, self.item_from_s)

    def hang_up(self, now: float) -> None:
        """Mark the reply as cut if it is playing when the caller hangs up.

        `now` is the time of hanging up, in seconds on the caller's clock. A reply that has run out of audio at this
        time is not marked, so it counts as incomplete.
        """
        if self.began_at is not None and self.cut_at is None and self.began_at <= now < self.ends_at:
            self.cut_at = now

    def played_s(self, now: float) -> float:
        """Return the seconds of audio that have been played by `now`, a time in seconds on the caller's clock."""
        if self.began_at is None:
            return 0.0
        return max(0.0, min(self.received_s, now - self.began_at - self.stalled_s))


class PlayoutBuffer:
    """Simulated player of one caller's replies. It updates the playback times in their `BufferedReply`."""

    def __init__(self, wire: AudioFormat, buffer_s: float) -> None:
        """Create a player.

        Args:
            wire: Format of the audio.
            buffer_s: Audio to buffer before playback starts, in seconds.
        """
        self._wire = wire
        self._buffer_s = buffer_s
        self._bytes_a_second = wire.rate * wire.sample_bytes

    def play(self, reply: BufferedReply, delta: str, now: float) -> None:
        """Queue audio of a reply. If the caller had silenced the reply, playback resumes.

        Args:
            reply: The reply, whose fields are updated.
            delta: Base64-encoded audio.
            now: Time of arrival in seconds on the caller's clock.
        """
        if reply.cut_at is not None:
            reply.resume(now)
        length_s = (len(delta) // 4 * 3 - delta.count("=", -2)) / self._bytes_a_second
        if reply.began_at is None:
            # The first piece of audio may be shorter than the buffer. Assume that the rest arrives in real time,
            # although the server usually sends faster.
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

    def _audible(self, delta: str, plays_at: float) -> float | None:
        """Return the time at which the first audible sample of `delta` is played. None if all of it is silent.

        Playback of `delta` (base64-encoded audio) starts at `plays_at`.
        """
        audio = binascii.a2b_base64(delta)
        pcm = self._wire.law.decode(audio) if self._wire.law else audio
        index = first_audible(pcm16_to_float(pcm), self._wire.rate)
        return None if index is None else plays_at + index / self._wire.rate
