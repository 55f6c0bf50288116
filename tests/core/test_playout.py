"""Playout: how far ahead audio is sent, and what was heard of it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.playout import FRAME_S, Playout

RATE = 24_000
LEAD_S = 0.32
FRAME = round(FRAME_S * RATE)

texts = st.lists(st.text("abcdef", min_size=1, max_size=9), min_size=1, max_size=8).map(" ".join)
segments = st.lists(st.tuples(texts, st.integers(1, RATE)), min_size=1, max_size=5)
waits = st.lists(st.floats(0, 1), max_size=40)


def filled(parts: list[tuple[str, int]]) -> Playout:
    """A reply whose segments are all synthesized."""
    playout = Playout(LEAD_S, RATE)
    for text, samples in parts:
        playout.begin(text)
        playout.add(samples)
    playout.end()
    return playout


def send_all(playout: Playout, now: float) -> None:
    while allowed := playout.allowance(now):
        playout.sent(allowed, now)


def test_releases_the_lead_at_once_and_then_frame_by_frame() -> None:
    """First the whole lead, then a frame as soon as a frame was heard."""
    playout = filled([("hello", RATE)])
    assert playout.allowance(5.0) == round(LEAD_S * RATE)
    playout.sent(playout.allowance(5.0), 5.0)
    assert playout.allowance(5.0 + FRAME_S / 2) == 0
    release = playout.next_release(5.0)
    assert release is not None
    assert release == pytest.approx(5.0 + FRAME_S, abs=1e-4)
    assert playout.allowance(release) == FRAME


def test_a_short_rest_is_released_whole() -> None:
    """What is less than a frame goes out with the lead instead of waiting for company."""
    playout = filled([("hello", 7)])
    assert playout.allowance(0.0) == 7
    playout.sent(7, 0.0)
    assert playout.allowance(1.0) == 0
    assert playout.next_release(1.0) is None


def test_nothing_plays_before_the_first_send() -> None:
    """Audio that waits in the queue is not heard, however long it waits."""
    playout = filled([("hello", RATE)])
    assert playout.position_s(100.0) == 0
    assert playout.finish(100.0) == 100.0


def test_a_sender_that_ran_ahead_must_wait() -> None:
    """Sending more than was allowed closes the allowance until the listener has caught up."""
    playout = filled([("hello", 2 * RATE)])
    playout.sent(RATE, 0.0)
    assert playout.allowance(0.5) == 0
    release = playout.next_release(0.5)
    assert release == pytest.approx(1.0 - LEAD_S + FRAME_S, abs=1e-4)


def test_an_underrun_stops_the_position() -> None:
    """With nothing left to play the listener waits, and goes on from there with the next audio."""
    playout = filled([("hello", RATE)])
    playout.sent(2400, 0.0)
    assert playout.position_s(3.0) == pytest.approx(0.1)
    playout.sent(2400, 3.0)
    assert playout.position_s(3.05) == pytest.approx(0.15)
    assert playout.finish(3.05) == pytest.approx(3.1)


def test_words_count_when_fully_played() -> None:
    """A segment's audio is shared by characters: of `go home`, `go ` is 3 of 8."""
    playout = filled([("go home", 800), ("now", 400)])
    heard = [playout.heard_text(samples / RATE) for samples in (0, 299, 300, 799, 800, 1199, 1200)]
    assert heard == ["", "", "go", "go", "go home", "go home", "go home now"]


def test_the_first_chunk_is_not_the_whole_segment() -> None:
    """While synthesis goes on, 50 ms of audio does not count as the ten words it begins."""
    playout = Playout(LEAD_S, RATE)
    playout.begin("one two three four five six seven eight nine ten")
    playout.add(RATE // 20)
    assert playout.heard_text(0.05) == ""
    playout.end()
    assert playout.heard_text(0.05).endswith("ten")


def test_words_without_audio_are_not_heard() -> None:
    """A segment whose synthesis failed leaves no words in the history."""
    assert filled([("lost", 0), ("kept", 100)]).heard_text(100 / RATE) == "kept"


def test_audio_without_text_has_no_words() -> None:
    """A clip enqueued before any segment is played and says nothing."""
    playout = Playout(LEAD_S, RATE)
    playout.add(480)
    send_all(playout, 0.0)
    assert playout.position_s(1.0) == 0.02
    assert playout.heard_text(1.0) == ""


def test_cannot_send_what_was_not_added() -> None:
    """Sending more than the queue holds is a mistake of the caller's, told at once."""
    with pytest.raises(ValueError, match="2 samples sent, but 1 are queued"):
        filled([("hello", 1)]).sent(2, 0.0)


@given(segments, waits)
def test_the_position_never_runs_back_nor_ahead(parts: list[tuple[str, int]], steps: list[float]) -> None:
    """However sends are timed, the position rises, at most in real time, and stays within what was sent."""
    playout, now, sent = filled(parts), 0.0, 0
    positions = [(now, playout.position_s(now))]
    for wait in steps:
        now += wait
        allowed = playout.allowance(now)
        playout.sent(allowed, now)
        sent += allowed
        positions.append((now, playout.position_s(now)))
        assert positions[-1][1] <= sent / RATE + 1e-9
    assert all(
        -1e-9 <= position - before <= at - earlier + 1e-9 for (earlier, before), (at, position) in pairwise(positions)
    )


@given(segments, waits, st.floats(0.001, 1))
def test_the_lead_is_never_exceeded(parts: list[tuple[str, int]], steps: list[float], lead_s: float) -> None:
    """Unheard audio ahead of the listener stays within the lead, even for a sender that wakes late or early."""
    playout, now, sent = Playout(lead_s, RATE), 0.0, 0
    for text, samples in parts:
        playout.begin(text)
        playout.add(samples)
    for wait in steps:
        now += wait
        allowed = playout.allowance(now)
        playout.sent(allowed, now)
        sent += allowed
        assert sent - playout.position_s(now) * RATE <= max(1, lead_s * RATE) + 1e-6


@given(segments, st.floats(0.001, 1), st.floats(0, 1e6))
def test_a_sender_that_sleeps_until_the_release_plays_everything_without_a_gap(
    parts: list[tuple[str, int]], lead_s: float, begin: float
) -> None:
    """Waking at `next_release` always finds something to send, and the reply ends when its audio is over."""
    playout, now = Playout(lead_s, RATE), begin
    for text, samples in parts:
        playout.begin(text)
        playout.add(samples)
    while (release := playout.next_release(now)) is not None:
        now = release
        allowed = playout.allowance(now)
        assert allowed > 0
        playout.sent(allowed, now)
    total_s = sum(samples for _, samples in parts) / RATE
    # A lead shorter than the sample of margin at every release leaves that sample's gap.
    slack = 1e-3 if lead_s >= 2 * FRAME_S else total_s
    assert playout.finish(now) - begin == pytest.approx(total_s, abs=slack)


@given(segments, st.lists(st.floats(0, 6), min_size=2, max_size=8))
def test_heard_text_is_a_growing_prefix(parts: list[tuple[str, int]], positions: list[float]) -> None:
    """Word by word the heard text is the reply's beginning, and grows with the position up to all of it."""
    playout = filled(parts)
    words = " ".join(text for text, _ in parts).split()
    heard = [playout.heard_text(position).split() for position in sorted(positions)]
    assert all(words[: len(part)] == part for part in heard)
    assert all(len(before) <= len(after) for before, after in pairwise(heard))
    assert playout.heard_text(sum(samples for _, samples in parts) / RATE).split() == words
