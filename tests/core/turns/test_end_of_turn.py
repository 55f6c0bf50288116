"""Tests of the end-of-turn probability from the turn detector and the transcript's ending."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from rejoinder.core.turns.end_of_turn import complete
from rejoinder.core.turns.transcript_ending import TranscriptEnding

endings = st.none() | st.sampled_from(TranscriptEnding)
opinions = st.floats(0, 1)


@given(opinions, opinions, endings)
def test_the_probability_rises_with_the_turn_detector(one: float, other: float, words: TranscriptEnding | None) -> None:
    """The result lies between 0 and 1, and increases with the turn detector's probability."""
    low, high = sorted((one, other))
    assert 0 < complete(low, words) <= complete(high, words) < 1


@given(opinions)
def test_an_open_ending_lowers_the_probability(turn_model: float) -> None:
    """An OPEN ending lowers the probability. A DOUBTFUL ending has the same effect as no transcript."""
    assert complete(turn_model, TranscriptEnding.OPEN) < complete(turn_model, None)
    assert complete(turn_model, TranscriptEnding.DOUBTFUL) == complete(turn_model, None)
