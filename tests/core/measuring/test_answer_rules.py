"""Tests of the rules that judge an answer: normalized numbers, the stated result, the language, and loops."""

from __future__ import annotations

import pytest

from rejoinder.core.measuring.answer_rules import AnswerFault, AnswerRule, has_loop, is_foreign, normalized


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Twenty-four", "24"),
        ("five five five, zero one two", "5 5 5, 0 1 2"),
        ("one hundred and five", "105"),
        ("two thousand four hundred and twelve", "2412"),
        ("one and two", "1 and 2"),
        ("on the twenty-fifth of December", "on the 25th of december"),
        ("It costs 1,440 dollars.", "it costs 1440 dollars."),
        ("one of the planets", "one of the planets"),
        ("at 9 A.M. on Monday", "at 9 am on monday"),
        ("one hundred minus thirty five is sixty five", "100 minus 35 is 65"),
        ("don\u2019t", "don't"),
    ],
)
def test_number_words_become_digits(text: str, expected: str) -> None:
    """`normalized` writes number words as digits. Numbers that are read digit by digit keep their spaces ("5 5 5")."""
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("12 plus 19 is 31.", True),
        ("31, because 12 and 19 make 31.", True),
        ("It is 32, not 31.", False),
        ("12 plus 19 equals 12.", False),
        ("Thirty-one", True),
    ],
)
def test_the_stated_result_must_be_the_number(answer: str, right: bool) -> None:
    """For the question "12 plus 19", an answer must contain 31 and must not state another number as the result.

    It may also repeat the numbers of the question.
    """
    assert (AnswerRule(number=31, of=(12, 19)).fault(answer) is None) is right


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("The capital of Spain is Madrid.", False),
        ("Café au lait is a coffee with milk.", False),
        ("Paris.", False),
        ("Il Coriobergio, il Coriobello", True),
        ("La capitale de la France est Paris.", True),
        ("Привет, как дела?", True),
    ],
)
def test_only_english_is_english(text: str, foreign: bool) -> None:
    """A text is foreign if it has another script, or more function words of other languages than of English."""
    assert is_foreign(text) is foreign


@pytest.mark.parametrize(
    ("text", "looped"),
    [
        ("and so on and so on and so on", True),
        ("He said no, no, no, no.", True),
        ("The number is five five five.", False),
        ("It is 5 5 5 5.", False),
        ("I think that I know that.", False),
    ],
)
def test_a_loop_is_three_times_the_same_words(text: str, looped: bool) -> None:
    """The same words three times in a row are a loop, but digits that are read aloud are not."""
    assert has_loop(text) is looped


def test_an_unspeakable_answer_is_gibberish() -> None:
    """An answer with code or with control tokens of a chat template is gibberish, even if it has the right word."""
    for answer in ("Paris. <|im_end|>", "```Paris```", "def capital(): return 'Paris'"):
        assert AnswerRule(all=("paris",)).fault(answer) is AnswerFault.GIBBERISH
