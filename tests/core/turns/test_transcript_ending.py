"""How a transcript ends: what reads finished, what reads open, and what decides nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.turns.transcript_ending import Ending, ending


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the capital of France?", Ending.FINISHED),
        ("Please call me tomorrow.", Ending.FINISHED),
        ("Stop it now!", Ending.FINISHED),
        ("Can you tell me what this is about?", Ending.FINISHED),
        ("I would like to", Ending.OPEN),
        ("I would like to.", Ending.OPEN),
        ("Well, the thing is...", Ending.OPEN),
        ("It was the best of times,", Ending.OPEN),
        ("My number is four five -", Ending.OPEN),
        ("Yes.", Ending.DOUBTFUL),
        ("my number is four five", Ending.DOUBTFUL),
        ("", Ending.DOUBTFUL),
        (" . ", Ending.DOUBTFUL),
    ],
)
def test_endings(text: str, expected: Ending) -> None:
    """Punctuation and the last word tell; a remark of a word or two, or without punctuation, tells nothing."""
    assert ending(text) is expected


def test_other_languages_have_their_punctuation_only() -> None:
    """An English word at the end means nothing in another language."""
    assert ending("Das ist ein die.", "de") is Ending.FINISHED
    assert ending("Gib mir in.", "de") is ending("Gib mir am.", "de") is Ending.FINISHED
    assert ending("Give it in.", "en") is Ending.OPEN


@given(st.text())
def test_every_text_has_an_ending(text: str) -> None:
    """Whatever was recognized, there is an answer, and surrounding space changes none."""
    assert ending(f"  {text}\n") is ending(text)
