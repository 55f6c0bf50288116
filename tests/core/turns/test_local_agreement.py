"""Tests of stable words: the words on which successive interim transcripts agree, so that they will hardly change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.turns.local_agreement import Agreement, agree, same_words


def after(*transcripts: str) -> Agreement:
    agreement = Agreement()
    for transcript in transcripts:
        agreement = agree(agreement, transcript)
    return agreement


def test_one_transcript_has_no_stable_words() -> None:
    """After one transcript no word is stable: two transcripts must contain it."""
    assert after("I would like to").text == ""


def test_the_last_common_word_is_not_stable() -> None:
    """The last shared word of two transcripts is not stable: it may be the beginning of a word ("the", "theatre")."""
    assert after("I would like the", "I would like theatre tickets").text == "I would"
    assert after("I would like the", "I would like the theatre").text == "I would like"


def test_case_and_punctuation_are_ignored() -> None:
    """Transcripts that differ only in case and punctuation agree, and the stable words have the newer spelling."""
    assert after("So, I think.", "so I think that it", "So I think that it rains").text == "so I think that"


def test_an_outlier_does_not_change_stable_words() -> None:
    """A transcript that contradicts the stable words neither removes nor adds any.

    It also interrupts the agreement: words are added again when two later transcripts agree on them.
    """
    agreement = after("one two three four", "one two three four five")
    assert agreement.text == "one two three"
    agreement = agree(agreement, "won too free")
    assert agreement.text == "one two three"
    agreement = agree(agreement, "one two three four five six")
    assert agreement.text == "one two three"
    assert agree(agreement, "one two three four five six seven").text == "one two three four five"


words = st.lists(st.sampled_from(["a", "b", "c", "A.", "b,"]), max_size=8).map(" ".join)


@given(st.lists(words, max_size=12))
def test_stable_words_are_only_added(transcripts: list[str]) -> None:
    """With each further transcript the stable words stay as they are or are extended."""
    agreement = Agreement()
    for transcript in transcripts:
        grown = agree(agreement, transcript)
        assert grown.stable[: len(agreement.stable)] == agreement.stable
        agreement = grown


def test_likely_is_the_newest_transcript_without_its_last_word() -> None:
    """`likely` is the newest transcript without its last word, or the stable words if it contradicts them."""
    assert after("I would like the").likely == "I would like"
    assert after("I would like the", "I would like theatre tickets").likely == "I would like theatre"
    sure = after("one two three four", "one two three four")
    assert sure.likely == "one two three"
    assert agree(sure, "nine eight seven").likely == sure.text
    assert after("Yes").likely == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Tell me the time.", "tell me the time,", True),
        ("Tell me the time", "Tell me the time.", True),
        ("You go to Rome.", "You go to Rome?", False),
        ("You go to Rome?", "You go to rome?", True),
        ("Tell me the time.", "Tell me the times.", False),
        ("Tell me the time.", "Tell me the time. Now.", False),
        ("", "", True),
        ("", "Yes.", False),
    ],
)
def test_same_words_ignores_spelling(one: str, other: str, same: bool) -> None:
    """`same_words` ignores case and punctuation, except for a question mark at the end."""
    assert same_words(one, other) is same
    assert same_words(other, one) is same
