"""Tests of the replay buffer. `take` returns audio in order, and `wind` goes back to an earlier sample."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.playout import Playout
from rejoinder.core.reply.replay_buffer import ReplayBuffer, ReplayPiece
from rejoinder.core.reply.spoken.units import SpeechSegment

RATE = 1000
KEEP = 400


def pcm(start: int, samples: int) -> bytes:
    """Return 16-bit PCM of `samples` samples, in which the value of each sample is its position from `start` on."""
    return b"".join((start + number).to_bytes(2, "little") for number in range(samples))


def test_words_are_returned_once() -> None:
    """`take` returns the words of a segment with its first sample, and not again when the audio is replayed."""
    buffer = ReplayBuffer(KEEP)
    buffer.add(ReplayPiece("one", pcm(0, 10)))
    buffer.add(ReplayPiece("two", pcm(10, 10)))
    assert [buffer.take(100).words for _ in range(2)] == ["one", "two"]
    buffer.wind(5)
    again = buffer.take(100)
    assert (again.words, again.answers, again.pcm) == ("", False, pcm(5, 15))
    assert buffer.waiting == 0


def test_only_recent_audio_can_be_replayed() -> None:
    """Only the last samples taken, as many as the buffer keeps, can be replayed. An older position raises an error."""
    buffer = ReplayBuffer(5)
    buffer.add(ReplayPiece("one", pcm(0, 10)))
    buffer.take(10)
    assert buffer.oldest == 5
    buffer.wind(5)
    with pytest.raises(ValueError, match="sample 4 is not in the replay buffer, which holds 5 to 10"):
        buffer.wind(4)


def test_a_cleared_buffer_is_empty() -> None:
    """After `clear`, neither new nor replayed audio can be taken."""
    buffer = ReplayBuffer(KEEP)
    buffer.add(ReplayPiece("one", pcm(0, 10)))
    buffer.take(5)
    buffer.wind(2)
    buffer.clear()
    assert buffer.waiting == 0


def test_a_reported_position_replaces_the_model() -> None:
    """`flush` returns the position, in samples, that the client reports, at most the number of samples sent.

    Without a report it returns the position computed from the time that the audio has played. After `flush` the
    position no longer moves.
    """
    playout = Playout(1.0, RATE)
    playout.begin(SpeechSegment.verbatim("a few words"))
    playout.add(1000)
    playout.sent(800, 10.0)
    assert playout.flush(10.5) == 500
    assert playout.position_s(99.0) == 0.5
    assert playout.flush(10.6, 420) == 420
    assert playout.flush(10.6, 640) == 640
    assert playout.flush(10.6, 5000) == 800
    assert playout.reached_s == 0.8
    assert playout.wait_s(200, 12.0) == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0, 0.5)),
        st.tuples(st.just("flush"), st.none() | st.floats(-0.1, 0.1)),
        st.tuples(st.just("add"), st.integers(1, 300)),
    ),
    max_size=30,
)


@given(steps)
def test_a_client_plays_every_sample_once_and_in_order(story: list[tuple[str, float | None]]) -> None:
    """A client that often drops its unplayed audio still plays every sample once and in order.

    The client may report the position at which it stopped. Otherwise the sender computes the position.
    """
    lead = 200
    buffer, playout = ReplayBuffer(KEEP), Playout(lead / RATE, RATE)
    client = _Client()
    added, now = 0, 5.0
    for kind, value in [*story, ("wait", 9.0), ("wait", 9.0)]:
        if kind == "add":
            samples = int(value or 1)
            playout.begin(SpeechSegment.verbatim("word"))
            playout.add(samples)
            buffer.add(ReplayPiece("word", pcm(added, samples)))
            added += samples
        elif kind == "flush":
            heard = client.flush(now, value or 0.0)
            buffer.wind(playout.flush(now, None if value is None else max(heard, buffer.oldest)))
            if value is None:
                client.agree(buffer.position)
        else:
            until = now + (value or 0.0)
            while now < until:
                while buffer.waiting and not playout.wait_s(min(50, buffer.waiting), now):
                    piece = buffer.take(50)
                    playout.sent(piece.samples, now)
                    client.receive(piece.pcm, now)
                now = min(until, now + 0.01)
    client.flush(now, 0.0)
    assert client.heard == pcm(0, added)


class _Client:
    """Client that plays received audio in real time. `heard` is the audio it has played."""

    def __init__(self) -> None:
        self.heard = b""
        self._buffer = b""
        self._at = 0.0

    def receive(self, audio: bytes, now: float) -> None:
        self._play(now)
        self._buffer += audio

    def flush(self, now: float, off_s: float) -> int:
        """Play until `now` with a clock error of `off_s` seconds, drop the rest, and return the samples played."""
        self._play(max(self._at, now + off_s))
        self._buffer, self._at = b"", now
        return len(self.heard) // 2

    def agree(self, position: int) -> None:
        """Shorten the played audio to `position` samples, the position that the sender computed."""
        self.heard = self.heard[: position * 2]
        assert len(self.heard) // 2 == position

    def _play(self, now: float) -> None:
        samples = round((now - self._at) * RATE) if self._buffer else 0
        self.heard += self._buffer[: samples * 2]
        self._buffer = self._buffer[samples * 2 :]
        self._at = now
