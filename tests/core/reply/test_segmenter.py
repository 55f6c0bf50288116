"""Tests of the segmenter, which divides the text of a token stream into segments for speech synthesis."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.segmenter import Segmenter
from rejoinder.core.reply.spoken.units import SpeechSegment

FIRST, LATER = 6, 24

LONG = "a b c d e f g h i j k l m n o p q r s t u v w x y z"


def written(segments: list[SpeechSegment]) -> list[str]:
    """Return the text of each segment as the transcript has it."""
    return [segment.written for segment in segments]


plain_words = st.sampled_from(
    [
        "the",
        "answer",
        "is",
        "3.5",
        "1,000",
        "yes,",
        "no;",
        "done.",
        "why?",
        "well...",
        "it's",
        "Paris",
        '"so."',
        "$5",
        "42.",
    ]
)
bound_words = st.sampled_from(["Mr.", "e.g.", "U.S.", "(i.e.,", "J."])
signs = st.sampled_from(["-", "—", "...", '"', "!", ")"])
gaps = st.sampled_from([" ", "  ", "\t"])
seeds = st.integers(1, 9)


@st.composite
def texts(draw: st.DrawFn, words: st.SearchStrategy[str]) -> str:
    """Draw a text of "Well" and some of `words`. Without "Well", a "-" at the start of the line would be a bullet."""
    parts = ["Well", *draw(st.lists(words, max_size=60))]
    return "".join(part + draw(gaps) for part in parts).strip()


def split(text: str, size: int = 1, first: int = FIRST, later: int = LATER) -> list[str]:
    """Return the written segments of `text`, which is pushed in pieces of `size` characters.

    `first` and `later` are the maximum number of words of the first segment and of the others.
    """
    segmenter = Segmenter(first, later)
    pieces = (text[at : at + size] for at in range(0, len(text), size))
    segments = [segment for piece in pieces for segment in segmenter.push(piece)] + segmenter.flush()
    assert all(any(char.isalnum() for char in segment.spoken) for segment in segments)
    return [segment.written for segment in segments]


def spoken(text: str) -> list[str]:
    return [word for word in text.split() if re.search(r"[\w$]", word)]


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("Sure. It is noon.", ["Sure.", "It is noon."]),
        ("Of course, the capital is Paris.", ["Of course,", "the capital is Paris."]),
        ("Sure, I can help you with that today.", ["Sure, I can help you with", "that today."]),
        ("The capital of France is the city of Paris.", ["The capital of France is the", "city of Paris."]),
        ("It costs 3.5 or 1,000 dollars.", ["It costs 3.5 or", "1,000 dollars."]),
        ("Your phone number is 555 0123, right?", ["Your phone number is", "555 0123, right?"]),
        ("I have 3 big dogs.", ["I have 3 big dogs."]),
        ("I asked Dr. Smith, e.g. on Monday. Good.", ["I asked Dr. Smith,", "e.g. on Monday.", "Good."]),
        ("He met the famous old Dr. Smith today.", ["He met the famous old", "Dr. Smith today."]),
        ('He said "no." Then left.', ['He said "no."', "Then left."]),
        ("Wait... what is it? ... Yes!", ["Wait... what is it?", "... Yes!"]),
        ("It is five - maybe six.", ["It is five -", "maybe six."]),
        ("The answer is 42. Next.", ["The answer is 42.", "Next."]),
    ],
)
def test_cuts_where_a_speaker_would_pause(text: str, segments: list[str]) -> None:
    """The first segment ends at a comma or after FIRST words, later segments end with a sentence.

    No segment ends inside a number or at an abbreviation.
    """
    assert split(text) == segments


def test_markdown_is_not_read_aloud() -> None:
    """The markdown signs of emphasis, code, headings and bullets are removed from the segments.

    A segment ends at the end of its line, and a numbered item keeps its number.
    """
    text = "# Three *good* ideas\n\n- **Walk** to `work`\n* Sleep\n1. Eat 2*3 apples\n"
    assert split(text) == ["Three good ideas", "Walk to work", "Sleep", "1. Eat 2*3 apples"]


def test_a_long_sentence_is_cut_at_its_last_clause() -> None:
    """A segment that reaches its maximum length inside a sentence ends after the last comma."""
    assert split(f"Go. one two, three four, five six seven {LONG}", later=8)[1:3] == [
        "one two, three four,",
        "five six seven a b c d e",
    ]


def test_a_segment_is_returned_with_its_last_word() -> None:
    """A segment is returned at the whitespace after its last word, without any text of the next word."""
    segmenter = Segmenter(2, LATER)
    assert segmenter.push("Hello the") == []
    assert segmenter.push("re") == []
    assert [segment.written for segment in segmenter.push(" ")] == ["Hello there"]


def test_a_full_stop_waits_for_its_word_to_end() -> None:
    """A full stop ends a sentence only if whitespace follows it: the next token may continue a decimal number."""
    segmenter = Segmenter(FIRST, LATER)
    assert segmenter.push("It is 3.") == []
    assert segmenter.push("5 now.") == []
    assert [segment.written for segment in segmenter.flush()] == ["It is 3.5 now."]


@pytest.mark.parametrize("text", ["", "   \n", "...", '" — "', "**", "# \n- \n"])
def test_text_without_words_makes_no_segment(text: str) -> None:
    """Whitespace, signs and bare markdown make no segment."""
    assert split(text) == []


@given(texts(plain_words | bound_words | signs), seeds, seeds)
def test_segments_do_not_depend_on_the_pieces(text: str, first: int, size: int) -> None:
    """The segments are the same for any split of the text into tokens."""
    assert split(text, size, first, first * 3) == split(text, len(text), first, first * 3)


@given(st.text("ab1 .,!-*#`_\n\"'", max_size=80), seeds)
def test_segments_of_any_text_do_not_depend_on_the_pieces(text: str, size: int) -> None:
    """Also with markdown, newlines and single signs, segments do not depend on the tokens, and each has a word."""
    segments = split(text, size)
    assert segments == split(text, max(1, len(text)))
    assert all(spoken(segment) for segment in segments)


@given(texts(plain_words | bound_words | signs), seeds, seeds)
def test_segments_are_the_whole_text(text: str, first: int, later: int) -> None:
    """The joined segments are the text with single spaces, except for signs without words at the end of the text."""
    joined, whole = " ".join(split(text, 3, first, later)), " ".join(text.split())
    assert whole.startswith(joined)
    assert not spoken(whole[len(joined) :])


@given(texts(plain_words | signs), seeds, seeds)
def test_segments_keep_their_limits(text: str, first: int, later: int) -> None:
    """In text without abbreviations, no segment has more words than its maximum."""
    segments = split(text, 3, first, later)
    assert len(spoken(segments[0])) <= first
    assert all(len(spoken(segment)) <= later for segment in segments[1:])


@given(texts(plain_words | bound_words), seeds, seeds)
def test_bound_words_stay_with_the_next(text: str, first: int, later: int) -> None:
    """An abbreviation such as "Mr." stays in one segment with the next word; only the last segment may end with it."""
    ends = [segment.split()[-1] for segment in split(text, 3, first, later)]
    assert not {"Mr.", "e.g.", "U.S.", "(i.e.,", "J."} & set(ends[:-1])


def test_complete_words_can_be_taken_early() -> None:
    """`take(n)` returns the complete words so far as a segment, or nothing if there are fewer than n.

    It does not return an abbreviation such as "Dr." before the next word is complete.
    """
    segmenter = Segmenter(5, 24)
    segmenter.push("Hello there, my dear friend. ")
    assert segmenter.take(1) == []
    segmenter.push("We saw Dr. ")
    assert segmenter.take(3) == []
    assert written(segmenter.take(2)) == ["We saw"]
    segmenter.push("Smith yester")
    assert written(segmenter.take(2)) == ["Dr. Smith"]
    assert written(segmenter.push("day evening.") + segmenter.flush()) == ["yesterday evening."]


def test_text_that_is_not_spoken_yet_can_be_dropped() -> None:
    """`discard` drops words that are in no segment yet.

    Text after it counts as the beginning of a line (a heading here).
    """
    segmenter = Segmenter(5, 24)
    segmenter.push("We open a")
    segmenter.discard()
    assert written(segmenter.push("# Nine. ")) == ["Nine."]
