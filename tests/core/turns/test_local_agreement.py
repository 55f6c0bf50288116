"""What two guesses at an utterance agree on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.turns.local_agreement import Agreement, agree, same_words


def after(*guesses: str) -> Agreement:
    known = Agreement()
    for guess in guesses:
        known = agree(known, guess)
    return known


def test_one_guess_is_no_agreement() -> None:
    """Nothing is sure until it was said twice."""
    assert after("I would like to").text == ""


def test_the_newest_common_word_is_not_sure() -> None:
    """It may be half of another: "the" of "theatre"."""
    assert after("I would like the", "I would like theatre tickets").text == "I would"
    assert after("I would like the", "I would like the theatre").text == "I would like"


def test_case_and_punctuation_do_not_disagree() -> None:
    """Whisper ends every guess like a sentence; the newer writing is kept."""
    assert after("So, I think.", "so I think that it", "So I think that it rains").text == "so I think that"


def test_an_outlier_changes_nothing_that_was_sure() -> None:
    """A guess gone wrong neither takes words back nor adds any, and the next agreement goes on behind them."""
    known = after("one two three four", "one two three four five")
    assert known.text == "one two three"
    known = agree(known, "won too free")
    assert known.text == "one two three"
    known = agree(known, "one two three four five six")
    assert known.text == "one two three"
    assert agree(known, "one two three four five six seven").text == "one two three four five"


words = st.lists(st.sampled_from(["a", "b", "c", "A.", "b,"]), max_size=8).map(" ".join)


@given(st.lists(words, max_size=12))
def test_what_is_sure_is_only_added_to(guesses: list[str]) -> None:
    """Each agreement begins with the one before, word for word."""
    known = Agreement()
    for guess in guesses:
        grown = agree(known, guess)
        assert grown.stable[: len(known.stable)] == known.stable
        known = grown


def test_what_is_likely_is_the_newest_guess_but_its_last_word() -> None:
    """Ahead of what is sure, but never against it."""
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
def test_spelling_makes_no_other_words(one: str, other: str, same: bool) -> None:
    """Case and marks are compared away; that one of them asks is not."""
    assert same_words(one, other) is same
    assert same_words(other, one) is same
