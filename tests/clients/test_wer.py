"""Word error rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.wer import word_error_rate, word_errors, words

TEXT = st.lists(st.sampled_from(["a", "b", "c", "it's", "seven", "7", "12"]), max_size=12).map(" ".join)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("What time is it?", "what time is it"),
        ("It’s 25 degrees.", "it's twenty-five degrees"),
        ("Call 0 1 99!", "call zero one ninety nine"),
        ("1,250 people, 3.5%", "one thousand two hundred fifty people three point five percent"),
        ("In 1984", "in one thousand nine hundred eighty four"),
        ("room 007", "room zero zero seven"),
        ("at 3:30", "at three thirty"),
    ],
)
def test_style_is_not_an_error(left: str, right: str) -> None:
    """Case, punctuation and how a number is written make no difference."""
    assert words(left) == words(right)


def test_contractions_are_kept() -> None:
    """ "It's" and "it is" are different words, as they are spoken."""
    assert words("It's what's 'here'") == ["it's", "what's", "here"]


@pytest.mark.parametrize(
    ("expected", "heard", "rate"),
    [
        ("one two three four", "one two three four", 0.0),
        ("one two three four", "one too three four", 0.25),
        ("one two three four", "one three four", 0.25),
        ("one two three four", "one two two three four", 0.25),
        ("one two three four", "", 1.0),
        ("hello", "oh hello there you", 3.0),
        ("", "", 0.0),
        ("", "noise", float("inf")),
    ],
)
def test_known_rates(expected: str, heard: str, rate: float) -> None:
    """Substitutions, deletions and insertions each cost one of the expected words."""
    assert word_error_rate(expected, heard) == rate


@given(TEXT, TEXT, TEXT)
def test_errors_are_a_distance(a: str, b: str, c: str) -> None:
    """Zero exactly for the same words, symmetric, and no detour is shorter."""
    assert (word_errors(a, b) == 0) == (words(a) == words(b))
    assert word_errors(a, b) == word_errors(b, a)
    assert word_errors(a, c) <= word_errors(a, b) + word_errors(b, c)
