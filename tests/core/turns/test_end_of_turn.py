"""One probability from the turn model's word and the transcript's ending."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from rejoinder.core.turns.end_of_turn import complete
from rejoinder.core.turns.transcript_ending import TranscriptEnding

endings = st.none() | st.sampled_from(TranscriptEnding)
opinions = st.floats(0, 1)


@given(opinions, opinions, endings)
def test_a_surer_model_makes_a_surer_end(one: float, other: float, words: TranscriptEnding | None) -> None:
    """The result is a probability, and rises with the turn model's."""
    low, high = sorted((one, other))
    assert 0 < complete(low, words) <= complete(high, words) < 1


@given(opinions)
def test_an_open_ending_speaks_against_the_end(turn_model: float) -> None:
    """Words that want another one behind them lower it; a doubtful ending is as good as none."""
    assert complete(turn_model, TranscriptEnding.OPEN) < complete(turn_model, None)
    assert complete(turn_model, TranscriptEnding.DOUBTFUL) == complete(turn_model, None)
