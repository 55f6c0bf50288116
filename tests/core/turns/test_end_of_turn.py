"""Tests of the probability that a turn is over, which follows from the turn detector and the transcript's ending."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from rejoinder.core.turns.end_of_turn import end_of_turn_probability
from rejoinder.core.turns.transcript_ending import TranscriptEnding

endings = st.none() | st.sampled_from(TranscriptEnding)
opinions = st.floats(0, 1)


@given(opinions, opinions, endings)
def test_the_probability_rises_with_the_turn_detector(one: float, other: float, words: TranscriptEnding | None) -> None:
    """The probability that a turn is over never falls if the turn detector's probability rises.

    It lies between 0 and 1.
    """
    low, high = sorted((one, other))
    assert 0 < end_of_turn_probability(low, words) <= end_of_turn_probability(high, words) < 1


@given(opinions)
def test_an_open_ending_lowers_the_probability(turn_model: float) -> None:
    """A transcript that looks incomplete (OPEN) lowers the probability. An UNCLEAR ending counts like no transcript."""
    assert end_of_turn_probability(turn_model, TranscriptEnding.OPEN) < end_of_turn_probability(turn_model, None)
    assert end_of_turn_probability(turn_model, TranscriptEnding.UNCLEAR) == end_of_turn_probability(turn_model, None)
