"""Tests of the word error rate: normalization and distance."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.measuring.wer import pooled_error_rate, word_error_rate, word_errors, words

TEXT = st.lists(st.sampled_from(["a", "b", "c", "it's", "seven", "7", "12"]), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Go forward 10 meters!", "go forward ten meters"),
        ("29340.", "two nine three four zero"),
        ("33, 500 and 28.8", "thirty three five hundred and twenty eight point eight"),
        ("20 05 101", "twenty zero five one zero one"),
        ("1,250 people, 3.5%", "one thousand two hundred fifty people three point five percent"),
        ("2,000,015", "two million fifteen"),
        ("25000 for 300", "twenty five thousand for three hundred"),
        ("3.14", "three point one four"),
        ("In 1984, in 2005 or in 2024?", "in nineteen eighty four in two thousand five or in twenty twenty four"),
        ("room 007 at 3:30", "room zero zero seven at three thirty"),
        ("5000000000", "five zero zero zero zero zero zero zero zero zero"),
        ("Mr. O’Neil can't; cold-hearted", "mister oneil cant cold hearted"),
        ("Dr. & Mrs. Hale: OK, I cannot.", "doctor and missus hale okay i can not"),
        ("Où est l'été?", "où est lété"),
        ("  ...  ", ""),
    ],
)
def test_writing_conventions_do_not_count(written: str, spoken: str) -> None:
    """Numbers, case, punctuation, apostrophes, hyphens and abbreviations become the words that are spoken."""
    assert words(written) == spoken.split()


@given(TEXT)
def test_normalization_is_idempotent(text: str) -> None:
    """Normalized text does not change when it is normalized again."""
    assert words(" ".join(words(text))) == words(text)


def test_contractions_are_one_word_however_they_are_typed() -> None:
    """ "don't", "don’t" and "dont" are equal. "it's" and "it is" differ, because they are spoken differently."""
    assert words("don't") == words("don’t") == words("dont") == ["dont"]
    assert words("it's") != words("it is")


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
    """Each substituted, missing or added word is one error; the rate is errors divided by expected words."""
    assert word_error_rate(expected, heard) == rate


def test_the_pooled_rate_weighs_words_not_clips() -> None:
    """The pooled rate of clips is all errors divided by all words: one error in one and none in three words is 25%."""
    assert pooled_error_rate([("yes", "no"), ("one two three", "1 2 3")]) == 0.25


@given(TEXT, TEXT)
def test_the_distance_is_levenshteins(expected: str, heard: str) -> None:
    """The number of errors equals the Levenshtein distance of the two word lists by its recursive definition."""
    left, right = words(expected), words(heard)

    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        )

    assert word_errors(expected, heard) == distance(len(left), len(right))
