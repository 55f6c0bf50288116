"""Tests of the end-of-turn probability from the turn detector and the transcript's ending."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from rejoinder.core.turns.end_of_turn import end_of_turn_probability
from rejoinder.core.turns.transcript_ending import TranscriptEnding

endings = st.none() | st.sampled_from(TranscriptEnding)
opinions = st.floats(0, 1)


@given(opinions, opinions, endings)
def test_the_probability_rises_with_the_turn_detector(one: float, other: float, words: TranscriptEnding | None) -> None:
    """The result lies between 0 and 1, and increases with the turn detector's probability."""
    low, high = sorted((one, other))
    assert 0 < end_of_turn_probability(low, words) <= end_of_turn_probability(high, words) < 1


@given(opinions)
def test_an_open_ending_lowers_the_probability(turn_model: float) -> None:
    """An OPEN ending lowers the probability. An UNCLEAR ending has the same effect as no transcript."""
    assert end_of_turn_probability(turn_model, TranscriptEnding.OPEN) < end_of_turn_probability(turn_model, None)
    assert end_of_turn_probability(turn_model, TranscriptEnding.UNCLEAR) == end_of_turn_probability(turn_model, None)
