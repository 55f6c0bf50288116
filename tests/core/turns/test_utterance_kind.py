"""Tests of the kind of an utterance by its words: numbers, spelled names, e-mail addresses and lists."""

from __future__ import annotations

import pytest

from rejoinder.core.turns.utterance_kind import UtteranceKind, last_question, utterance_kind

K = UtteranceKind


@pytest.mark.parametrize(
    ("text", "asked", "kind"),
    [
        ("My phone number is,", "", K.DIGITS_OPEN),
        ("What is the phone number?", "", K.PLAIN),
        ("My phone number is 555", "", K.DIGITS_OPEN),
        ("My phone number is 555-012", "", K.DIGITS_OPEN),
        ("My phone number is 555-012-3456.", "", K.DIGITS_DONE),
        ("Call me at 555 012", "", K.DIGITS_OPEN),
        ("It's five five five oh one two three four five six", "What is your phone number?", K.DIGITS_DONE),
        ("It's double five three, one two", "Can I have your zip code?", K.DIGITS_DONE),
        ("Nine four four", "Can I have your zip code?", K.DIGITS_OPEN),
        ("4242 4242 4242 4242", "What is your card number?", K.DIGITS_DONE),
        ("7 3 9 dash 2", "What is the order number?", K.DIGITS),
        ("Two nine three four zero", "", K.DIGITS),
        ("Twenty five forty", "", K.DIGITS),
        ("I need twenty five", "How many?", K.PLAIN),
        ("A table for two at 7:30", "", K.PLAIN),
        ("Book it for the fifth at seven", "At what time?", K.PLAIN),
        ("My name is J-O-H", "", K.SPELLING),
        ("D as in David", "", K.SPELLING),
        ("I am", "", K.PLAIN),
        ("My e-mail is john at", "", K.ADDRESS_OPEN),
        ("My email address is john dot smith", "", K.ADDRESS_OPEN),
        ("john.smith@example.com", "", K.ADDRESS_DONE),
        ("My email is john dot smith at example dot com.", "", K.ADDRESS_DONE),
        ("john at example", "What is your email address?", K.ADDRESS_OPEN),
        ("I have an email question", "", K.PLAIN),
        ("I need milk, eggs, bread", "", K.LIST),
        ("I need milk, eggs, and bread", "", K.PLAIN),
        ("Yes, please.", "", K.PLAIN),
        ("What is the capital of France?", "", K.PLAIN),
        ("", "", K.PLAIN),
    ],
)
def test_the_kind(text: str, asked: str, kind: UtteranceKind) -> None:
    """The kind follows from the words of the utterance and of the assistant's question `asked`.

    For example, it tells whether a number or an e-mail address is still incomplete (OPEN) or complete (DONE).
    """
    assert utterance_kind(text, asked) is kind


def test_other_languages_are_plain() -> None:
    """The rules are English, so an utterance in another language is PLAIN."""
    assert utterance_kind("Meine Nummer ist 555, phone number is 555", "", "de") is K.PLAIN


def test_only_the_last_question_counts() -> None:
    """`last_question` returns the assistant's last sentence that ends with a question mark, or "" if there is none."""
    assert last_question("What is your zip code? Thanks. How many people? Tell me.") == "How many people"
    assert last_question("Thank you.") == ""
