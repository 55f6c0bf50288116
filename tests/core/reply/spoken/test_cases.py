"""Tests of the spoken text for the written texts of a table, and for any split of a text into pieces and segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.segmenter import Segmenter, segment_of
from rejoinder.core.reply.spoken.hidden import HiddenTextFilter
from rejoinder.core.reply.spoken.units import SpeechSegment
from tests.core.reply.spoken.cases import ENGLISH, FRENCH, GERMAN, SPANISH, cases

TABLES = {"en": ENGLISH, "de": GERMAN, "es": SPANISH, "fr": FRENCH}
ALL = [(code, written, spoken) for code, table in TABLES.items() for written, spoken, _ in cases(table)]
WRITTEN = [written for code, written, _ in ALL if code == "en"]


@pytest.mark.parametrize(("language", "written", "spoken"), ALL, ids=[written for _, written, _ in ALL])
def test_written_text_is_spoken_as_a_person_would_say_it(language: str, written: str, spoken: str) -> None:
    """The words that the voice gets for a written text are those of the table for its language."""
    assert segment_of(written, language).spoken == spoken


def test_the_table_is_large_enough() -> None:
    """The table has at least 150 cases in English, and 40 are also synthesized."""
    assert len(cases(ENGLISH)) >= 150
    assert sum(starred for *_, starred in cases(ENGLISH)) >= 40


def segments(text: str, cuts: list[int], first: int, later: int) -> list[SpeechSegment]:
    """Return the segments of a text that arrives in the pieces between `cuts`, through the filter for hidden text.

    `first` and `later` are the maximum number of words of the first segment and of the others.
    """
    hidden, segmenter = HiddenTextFilter(), Segmenter(first, later)
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    found: list[SpeechSegment] = []
    for start, end in zip([0, *ends], ends, strict=False):
        found += segmenter.push(hidden.push(text[start:end]))
    return [*found, *segmenter.push(hidden.flush()), *segmenter.flush()]


pieces = st.sampled_from([*WRITTEN, "<think>no 5</think>", "\n", '{"name": "f", "arguments": {"a": 1}}', "<|im_end|>"])
texts = st.lists(pieces, min_size=1, max_size=4).map(" ".join) | st.text(
    "a1$*<>[]()`\\|-.,5 x~#&;:/@\n你é😀", max_size=60
)
cuts = st.lists(st.integers(0, 300), max_size=30)
sizes = st.integers(1, 8)


@given(texts, cuts, sizes, sizes)
def test_any_split_gives_the_same_segments(text: str, cuts: list[int], first: int, later: int) -> None:
    """The segments, with their written and spoken words, are the same for every split of the text into pieces."""
    assert segments(text, cuts, first, later) == segments(text, [], first, later)


@given(texts, cuts, sizes, sizes)
def test_the_place_of_a_cut_does_not_change_what_is_spoken(text: str, cuts: list[int], first: int, later: int) -> None:
    """The spoken words are the same for any maximum length of the segments: a number is never read in two parts."""
    short, long = segments(text, cuts, first, later), segments(text, [], 10_000, 10_000)

    def words(parts: list[SpeechSegment]) -> list[str]:
        return [unit.spoken for part in parts for unit in part.units if unit.audible]

    assert words(short) == words(long)


@given(texts)
def test_the_voice_gets_no_text_that_it_would_read_as_signs(text: str) -> None:
    """Spoken text has letters, spaces and simple punctuation only: no digits, brackets, markup or emoji."""
    for segment in segments(text, [], 6, 24):
        odd = {char for char in segment.spoken if not (char.isalpha() or char in " ,.;:?!'-")}
        assert not odd, (segment.spoken, odd)
        assert any(char.isalpha() for char in segment.spoken)


@pytest.mark.parametrize(
    ("arrived", "complete"),
    [
        ("We have a nice house with ", 1),  # six plain words: the segment does not wait for the seventh
        ("It costs five. ", 1),
        ("It costs $5. ", 1),  # the full stop excludes "$5 million"
        ("We have a nice house of 5 ", 1),  # # "5" waits, as "million" may follow; the words before do not
        ("It is 5 ", 0),
        ("It is 5 million. ", 1),
        ("Sure, I saw Dr. ", 0),
        ("See [the docs and ", 0),
        ("See [the nice long docs here ", 1),  # the words of a link do not wait for its address
        ("No. ", 1),
    ],
)
def test_only_ambiguity_delays_the_first_segment(arrived: str, complete: int) -> None:
    """A first segment of at most six words is complete at once, unless later text could change how its words are read.

    `complete` is the number of segments returned for the text that has `arrived`.
    """
    assert len(Segmenter(6, 24).push(arrived)) == complete
