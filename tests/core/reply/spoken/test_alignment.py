"""Tests of the alignment of written and spoken words.

The conversation history keeps the written words of what the caller heard.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.playout import Playout
from rejoinder.core.reply.segmenter import Segmenter, segment_of
from tests.core.reply.spoken.cases import ENGLISH, cases

RATE = 1000
written_texts = st.lists(st.sampled_from([written for written, _, _ in cases(ENGLISH)]), min_size=1, max_size=3)


def played(text: str) -> tuple[Playout, float]:
    """Return (playout, seconds of audio) of the text as one segment, with 0.1 s of audio for each spoken character."""
    segment, playout = segment_of(text, "en"), Playout(1.0, RATE)
    length_s = sum(len(unit.spoken) + 1 for unit in segment.units if unit.spoken) / 10
    playout.begin(segment)
    playout.add(round(length_s * RATE))
    playout.end()
    return playout, length_s


def test_the_history_keeps_written_words() -> None:
    """A written word is heard when the last of its spoken words was played: "$1,234" with the end of "dollars"."""
    playout, _ = played("It costs $1,234 today.")
    spoken_before = len("It costs one thousand two hundred thirty-four ") / 10
    assert playout.heard_text(spoken_before) == "It costs"
    assert playout.heard_text(spoken_before + 0.8) == "It costs $1,234"


def test_words_that_are_not_spoken_count_with_the_next_word() -> None:
    """An emoji, which is not spoken, is heard together with the word after it.

    At the end it is heard with the last word.
    """
    playout, length_s = played("Great 😀 day 🎉")
    assert playout.heard_text(0.6) == "Great"
    assert playout.heard_text(length_s - 0.1) == "Great"
    assert playout.heard_text(length_s) == "Great 😀 day 🎉"


@given(written_texts, st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_what_was_heard_is_a_beginning_of_what_was_written(parts: list[str], shares: list[float]) -> None:
    """The heard text is the beginning of the segment's written text.

    It grows with the share of the audio that was played.
    """
    text = " ".join(parts)
    playout, length_s = played(text)
    whole = segment_of(text, "en").written
    heard = [playout.heard_text(share * length_s) for share in sorted(shares)]
    for shorter, longer in zip(heard, [*heard[1:], whole], strict=True):
        assert longer.startswith(shorter)
    assert playout.heard_text(length_s) == whole


@given(written_texts, st.integers(1, 6))
def test_the_written_words_are_the_text(parts: list[str], size: int) -> None:
    """The letters and digits of the segments' written words are those of the text, in order.

    Only words at the end that are not spoken may be missing.
    """
    text = " ".join(parts)
    segmenter = Segmenter(6, 24)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    segments = [segment for piece in pieces for segment in segmenter.push(piece)] + segmenter.flush()
    letters = "".join(char for segment in segments for char in segment.written if char.isalnum())
    assert "".join(char for char in text if char.isalnum()).startswith(letters)
