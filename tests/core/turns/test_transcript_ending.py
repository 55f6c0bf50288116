"""Tests of the classification of a transcript by its ending: FINISHED, OPEN (looks incomplete) or UNCLEAR."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.turns.transcript_ending import TranscriptEnding, bare_words, classify_ending


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the capital of France?", TranscriptEnding.FINISHED),
        ("Please call me tomorrow.", TranscriptEnding.FINISHED),
        ("Stop it now!", TranscriptEnding.FINISHED),
        ("Can you tell me what this is about?", TranscriptEnding.FINISHED),
        ("I would like to", TranscriptEnding.OPEN),
        ("I would like to.", TranscriptEnding.OPEN),
        ("Well, the thing is...", TranscriptEnding.OPEN),
        ("It was the best of times,", TranscriptEnding.OPEN),
        ("My number is four five -", TranscriptEnding.OPEN),
        ("Yes.", TranscriptEnding.UNCLEAR),
        ("my number is four five", TranscriptEnding.UNCLEAR),
        ("", TranscriptEnding.UNCLEAR),
        (" . ", TranscriptEnding.UNCLEAR),
    ],
)
def test_endings(text: str, expected: TranscriptEnding) -> None:
    """Punctuation and the last word decide the ending. If both are unclear, or the text is short, it is UNCLEAR."""
    assert classify_ending(text) is expected


def test_other_languages_use_punctuation_only() -> None:
    """In other languages the English list of words that leave a sentence open is not used, only punctuation."""
    assert classify_ending("Das ist ein die.", "de") is TranscriptEnding.FINISHED
    assert classify_ending("Gib mir in.", "de") is classify_ending("Gib mir am.", "de") is TranscriptEnding.FINISHED
    assert classify_ending("Give it in.", "en") is TranscriptEnding.OPEN


@given(st.text())
def test_every_text_has_an_ending(text: str) -> None:
    """Any text is classified without an error, and space around the text does not change the result."""
    assert classify_ending(f"  {text}\n") is classify_ending(text)


@pytest.mark.parametrize(
    ("heard", "bare"),
    [
        ("My phone number is,", "My phone number is"),
        ("What is that?", "What is that"),
        ("It is 5...", "It is 5"),
        ('He said "no".', 'He said "no'),
        ("", ""),
    ],
)
def test_punctuation_at_the_end_is_removed(heard: str, bare: str) -> None:
    """The recognizer's punctuation at the end of a transcript is removed, so that the model judges the words."""
    assert bare_words(heard) == bare
