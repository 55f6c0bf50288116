"""Tests of the kind of an utterance: a number or an address that is not complete, and everything else."""

from __future__ import annotations

import pytest

from rejoinder.core.turns.utterance_kind import UtteranceKind, utterance_kind


@pytest.mark.parametrize(
    "text",
    [
        "My phone number is,",
        "My phone number is.",
        "My phone number is 555",
        "My phone number is 555, 012.",
        "You can reach me at five five five, zero one two",
        "My zip code is nine four",
        "My email address is maria",
        "My e-mail is maria at example",
    ],
)
def test_a_number_or_address_that_lacks_a_part_is_unfinished(text: str) -> None:
    """Announced digits, or the domain of an e-mail address, are still missing."""
    assert utterance_kind(text).unfinished


@pytest.mark.parametrize(
    "text",
    [
        "My phone number is 555 012 3456.",
        "My zip code is nine four one zero three.",
        "My email address is maria at example dot com.",
        "What is your phone number?",
        "What is the capital of France?",
        "I need a table for 7 at 8.",
        "The answer is",
        "",
    ],
)
def test_complete_numbers_and_plain_speech_are_not_unfinished(text: str) -> None:
    """A number with its digits, an address with its domain, a question for a number and plain speech can end here."""
    assert not utterance_kind(text).unfinished


def test_the_question_of_the_assistant_tells_the_length() -> None:
    """Five digits answer a question for a zip code, but not one for a phone number."""
    assert utterance_kind("five five five one two", "What is your zip code?") is UtteranceKind.DIGITS_DONE
    assert utterance_kind("five five five one two", "What is your phone number?") is UtteranceKind.DIGITS_OPEN


def test_other_languages_are_plain() -> None:
    """The rules are English. An utterance in another language has no kind."""
    assert utterance_kind("My phone number is 555", language="de") is UtteranceKind.PLAIN
