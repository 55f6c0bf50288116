"""Tests of playout: when the next audio may be sent, and what the caller has heard so far.

The lead is how many seconds of audio may be sent ahead of what the caller hears. A position is the caller's place in
the reply, in seconds.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.playout import Playout
from rejoinder.core.reply.spoken.units import SpeechSegment

RATE = 24_000
LEAD_S = 0.32
LEAD = round(LEAD_S * RATE)
DELTA = RATE // 10

texts = st.lists(st.text("abcdef", min_size=1, max_size=9), min_size=1, max_size=8).map(" ".join)
segments = st.lists(st.tuples(texts, st.integers(1, RATE)), min_size=1, max_size=5)
waits = st.lists(st.floats(0, 1), max_size=40)


def filled(parts: list[tuple[str, int]]) -> Playout:
    """Return a playout of segments, each with its text and its number of synthesized samples."""
    playout = Playout(LEAD_S, RATE)
    for text, samples in parts:
        playout.begin(SpeechSegment.verbatim(text))
        playout.add(samples)
    playout.end()
    return playout


def test_the_lead_is_sent_at_once_and_then_what_was_heard() -> None:
    """At first, audio of the length of the lead may be sent at once. Later, as much as was heard since may be sent."""
    playout = filled([("hello", RATE)])
    assert playout.wait_s(LEAD, 5.0) == 0
    playout.sent(LEAD, 5.0)
    assert playout.wait_s(DELTA, 5.0) == pytest.approx(0.1)
    assert playout.wait_s(DELTA, 5.06) == pytest.approx(0.04, abs=1e-4)
    assert playout.wait_s(DELTA, 5.1001) == 0


def test_nothing_plays_before_the_first_send() -> None:
    """The position stays 0 until audio is sent, also if audio is queued."""
    playout = filled([("hello", RATE)])
    assert playout.position_s(100.0) == 0
    assert playout.finish(100.0) == 100.0


def test_a_sender_that_ran_ahead_must_wait() -> None:
    """If more than the lead was sent, the next audio waits until it fits into the lead again."""
    playout = filled([("hello", 2 * RATE)])
    playout.sent(RATE, 0.0)
    assert playout.wait_s(DELTA, 0.5) == pytest.approx(1.0 + 0.1 - LEAD_S - 0.5)


def test_a_piece_longer_than_the_lead_waits_for_silence() -> None:
    """A piece of audio longer than the lead may be sent when the caller has heard all earlier audio."""
    playout = filled([("hello", 3 * RATE)])
    assert playout.wait_s(RATE, 0.0) == 0
    playout.sent(RATE, 0.0)
    assert playout.wait_s(RATE, 0.25) == pytest.approx(0.75)


def test_an_underrun_stops_the_position() -> None:
    """The position stops while there is nothing to play, and continues with the next audio."""
    playout = filled([("hello", RATE)])
    playout.sent(2400, 0.0)
    assert playout.position_s(3.0) == pytest.approx(0.1)
    playout.sent(2400, 3.0)
    assert playout.position_s(3.05) == pytest.approx(0.15)
    assert playout.finish(3.05) == pytest.approx(3.1)


def test_words_count_when_fully_played() -> None:
    """A word is heard when its share of the segment's audio was played, in proportion to its characters.

    In the segment `go home` with 800 samples, `go` and the space have 3 of 8 characters, so `go` takes the first 300.
    """
    playout = filled([("go home", 800), ("now", 400)])
    heard = [playout.heard_text(samples / RATE) for samples in (0, 299, 300, 799, 800, 1199, 1200)]
    assert heard == ["", "", "go", "go", "go home", "go home", "go home now"]


def test_the_first_chunk_is_not_the_whole_segment() -> None:
    """While a segment is being synthesized, its first 50 ms of audio do not count as all ten words of its text."""
    playout = Playout(LEAD_S, RATE)
    playout.begin(SpeechSegment.verbatim("one two three four five six seven eight nine ten"))
    playout.add(RATE // 20)
    assert playout.heard_text(0.05) == ""
    playout.end()
    assert playout.heard_text(0.05).endswith("ten")


def test_words_without_audio_are_not_heard() -> None:
    """A segment whose synthesis has failed has no heard words."""
    assert filled([("lost", 0), ("kept", 100)]).heard_text(100 / RATE) == "kept"


def test_audio_without_text_has_no_words() -> None:
    """Audio that is queued before any segment begins moves the position and adds no heard words."""
    playout = Playout(LEAD_S, RATE)
    playout.add(480)
    playout.sent(480, 0.0)
    assert playout.position_s(1.0) == 0.02
    assert playout.heard_text(1.0) == ""


def test_sending_more_than_is_queued_raises() -> None:
    """Sending more samples than are queued raises an error."""
    with pytest.raises(ValueError, match="2 samples sent, but 1 are queued"):
        filled([("hello", 1)]).sent(2, 0.0)


@given(segments, waits)
def test_the_position_never_runs_back_nor_ahead(parts: list[tuple[str, int]], steps: list[float]) -> None:
    """Whenever audio is sent, the position never falls, rises at most in real time, and stays within the audio sent."""
    playout, now, sent = filled(parts), 0.0, 0
    positions = [(now, playout.position_s(now))]
    total = sum(samples for _, samples in parts)
    for wait in steps:
        now += wait
        fresh = min(DELTA, total - sent)
        playout.sent(fresh, now)
        sent += fresh
        positions.append((now, playout.position_s(now)))
        assert positions[-1][1] <= sent / RATE + 1e-9
    assert all(
        -1e-9 <= position - before <= at - earlier + 1e-9 for (earlier, before), (at, position) in pairwise(positions)
    )


@given(segments, waits)
def test_the_lead_is_never_exceeded(parts: list[tuple[str, int]], steps: list[float]) -> None:
    """If audio is sent only when `wait_s` is 0, the audio sent and not heard is never longer than the lead."""
    playout, now, sent = filled(parts), 0.0, 0
    total = sum(samples for _, samples in parts)
    for wait in steps:
        now += wait
        while sent < total and not playout.wait_s(fresh := min(DELTA, total - sent), now):
            playout.sent(fresh, now)
            sent += fresh
        assert sent - playout.position_s(now) * RATE <= LEAD + 1e-6


@given(segments, st.floats(0.001, 1), st.floats(0, 1e6))
def test_a_sender_that_waits_as_told_plays_without_a_gap(
    parts: list[tuple[str, int]], lead_s: float, begin: float
) -> None:
    """If pieces of half the lead are sent, each after waiting `wait_s` once, the reply is played without a gap."""
    playout, now = Playout(lead_s, RATE), begin
    for text, samples in parts:
        playout.begin(SpeechSegment.verbatim(text))
        playout.add(samples)
    rest = total = sum(samples for _, samples in parts)
    while rest:
        fresh = min(rest, max(1, int(lead_s * RATE / 2)))
        now += playout.wait_s(fresh, now)
        assert playout.wait_s(fresh, now) <= 1 / RATE
        playout.sent(fresh, now)
        rest -= fresh
    assert playout.finish(now) - begin == pytest.approx(total / RATE, abs=1e-3)


@given(segments, st.lists(st.floats(0, 6), min_size=2, max_size=8))
def test_heard_text_is_a_growing_prefix(parts: list[tuple[str, int]], positions: list[float]) -> None:
    """The heard text is the beginning of the reply. It grows with the position, up to the whole text at the end."""
    playout = filled(parts)
    words = " ".join(text for text, _ in parts).split()
    heard = [playout.heard_text(position).split() for position in sorted(positions)]
    assert all(words[: len(part)] == part for part in heard)
    assert all(len(before) <= len(after) for before, after in pairwise(heard))
    assert playout.heard_text(sum(samples for _, samples in parts) / RATE).split() == words
