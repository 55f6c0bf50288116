"""A reply's audio on its way out: taken in order, wound back, taken again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.playout import Playout
from rejoinder.core.reply.replay_buffer import ReplayBuffer, ReplayPiece

RATE = 1000
KEEP = 400


def pcm(start: int, samples: int) -> bytes:
    """Samples that say where they lie."""
    return b"".join((start + number).to_bytes(2, "little") for number in range(samples))


def test_words_are_told_once() -> None:
    """A segment's words come with its first sample, the first time only."""
    tape = ReplayBuffer(KEEP)
    tape.add(ReplayPiece("one", pcm(0, 10)))
    tape.add(ReplayPiece("two", pcm(10, 10)))
    assert [tape.take(100).words for _ in range(2)] == ["one", "two"]
    tape.wind(5)
    again = tape.take(100)
    assert (again.words, again.answers, again.pcm) == ("", False, pcm(5, 15))
    assert tape.waiting == 0


def test_what_is_too_old_is_gone() -> None:
    """Only what a listener can lack is kept."""
    tape = ReplayBuffer(5)
    tape.add(ReplayPiece("one", pcm(0, 10)))
    tape.take(10)
    assert tape.oldest == 5
    tape.wind(5)
    with pytest.raises(ValueError, match="sample 4 is not on the tape, which has 5 to 10"):
        tape.wind(4)


def test_a_cleared_tape_gives_nothing_more() -> None:
    """Neither what was never taken nor what could be taken again."""
    tape = ReplayBuffer(KEEP)
    tape.add(ReplayPiece("one", pcm(0, 10)))
    tape.take(5)
    tape.wind(2)
    tape.clear()
    assert tape.waiting == 0


def test_a_listener_who_says_where_it_stopped_is_believed() -> None:
    """Before or behind what the model says, but never beyond what it was sent; then it stands still."""
    playout = Playout(1.0, RATE)
    playout.begin("a few words")
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
def test_a_listener_hears_every_sample_once_and_in_order(story: list[tuple[str, float | None]]) -> None:
    """However often it flushes, and whether or not it says where: what it has heard is the reply's beginning, and
    at last all of it.
    """
    lead = 200
    tape, playout = ReplayBuffer(KEEP), Playout(lead / RATE, RATE)
    listener = _Listener()
    added, now = 0, 5.0
    for kind, value in [*story, ("wait", 9.0), ("wait", 9.0)]:
        if kind == "add":
            samples = int(value or 1)
            playout.begin("word")
            playout.add(samples)
            tape.add(ReplayPiece("word", pcm(added, samples)))
            added += samples
        elif kind == "flush":
            heard = listener.flush(now, value or 0.0)
            tape.wind(playout.flush(now, None if value is None else max(heard, tape.oldest)))
            if value is None:
                listener.agree(tape.position)
        else:
            until = now + (value or 0.0)
            while now < until:
                while tape.waiting and not playout.wait_s(min(50, tape.waiting), now):
                    piece = tape.take(50)
                    playout.sent(piece.samples, now)
                    listener.receive(piece.pcm, now)
                now = min(until, now + 0.01)
    listener.flush(now, 0.0)
    assert listener.heard == pcm(0, added)


class _Listener:
    """Plays what it gets, at once and in real time; its own clock may be a little off when it flushes."""

    def __init__(self) -> None:
        self.heard = b""
        self._buffer = b""
        self._at = 0.0

    def receive(self, audio: bytes, now: float) -> None:
        self._play(now)
        self._buffer += audio

    def flush(self, now: float, off_s: float) -> int:
        """Where it stands."""
        self._play(max(self._at, now + off_s))
        self._buffer, self._at = b"", now
        return len(self.heard) // 2

    def agree(self, position: int) -> None:
        """It heard exactly what the sender reckons."""
        self.heard = self.heard[: position * 2]
        assert len(self.heard) // 2 == position

    def _play(self, now: float) -> None:
        samples = round((now - self._at) * RATE) if self._buffer else 0
        self.heard += self._buffer[: samples * 2]
        self._buffer = self._buffer[samples * 2 :]
        self._at = now
