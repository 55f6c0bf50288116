"""Word error rate: the normaliser and the distance."""

from __future__ import annotations

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.wer import normalize, word_error_rate, word_errors


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Go forward 10 meters!", "go forward ten meters"),
        ("29340", "two nine three four zero"),
        ("33, 500 and 28.8", "thirty three five hundred and twenty eight point eight"),
        ("20 05 101", "twenty zero five one zero one"),
        ("Mr. O’Neil can't; cold-hearted", "mister oneil cant cold hearted"),
        ("  ...  ", ""),
    ],
)
def test_writing_conventions_do_not_count(written: str, spoken: str) -> None:
    """Numbers, case, punctuation, apostrophes and hyphens become the words that are said."""
    assert " ".join(normalize(written)) == spoken


WORDS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=8)


@given(truth=WORDS, heard=WORDS)
def test_the_distance_is_jiwers(truth: list[str], heard: list[str]) -> None:
    """Errors equal those of the field's standard tool, for any two texts."""
    output = jiwer.process_words(" ".join(truth), " ".join(heard))
    expected = output.substitutions + output.deletions + output.insertions
    assert word_errors(" ".join(truth), " ".join(heard)) == (expected, len(truth))


def test_the_rate_weighs_words_not_clips() -> None:
    """One error in a word and none in three make 25%."""
    assert word_error_rate([("yes", "no"), ("one two three", "1 2 3")]) == 0.25
