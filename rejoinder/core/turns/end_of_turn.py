"""Probability that a turn is over (`endpointing` computes the silence that ends the turn from it).

It combines the turn detector's probability and the transcript's ending. The turn detector uses prosody, and the
transcript's ending uses grammar. Their errors differ, so a logistic regression
combines them: the log-odds of the turn detector are weighted, and an offset is added if the transcript looks complete
(FINISHED) or incomplete (OPEN). The weights are fitted on human speech (`python -m benchmarks.studies.turn_curves`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rejoinder.core.turns.transcript_ending import TranscriptEnding

_LEAST = 0.01
"""Probabilities are clamped to [0.01, 0.99] before their log-odds are taken."""


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """Weights of the logistic regression, in log-odds.

    Attributes:
        bias: Always added.
        turn_model: Factor by which the turn detector's log-odds are multiplied.
        finished: Added if the transcript's ending is FINISHED.
        open: Added if the transcript's ending is OPEN.
    """

    bias: float
    turn_model: float
    finished: float
    open: float


WEIGHTS = FusionWeights(bias=0.61, turn_model=0.49, finished=-0.41, open=-0.62)
"""Fitted on 535 silences of read speech. `finished` is negative there, because speech recognition ends every fragment
with a full stop."""


def end_of_turn_probability(
    turn_model: float, words: TranscriptEnding | None, weights: FusionWeights = WEIGHTS
) -> float:
    """Return the probability that the turn is over.

    Args:
        turn_model: The turn detector's probability.
        words: The transcript's ending, or None if there is no transcript yet.
        weights: The weights of the regression.
    """
    factors = (weights.bias, weights.turn_model, weights.finished, weights.open)
    log_odds = sum(factor * value for factor, value in zip(factors, regression_inputs(turn_model, words), strict=True))
    return 1 / (1 + math.exp(-log_odds))


def regression_inputs(turn_model: float, words: TranscriptEnding | None) -> tuple[float, float, float, float]:
    """Return the inputs of the regression, in the order of the fields of `FusionWeights`."""
    clamped = min(max(turn_model, _LEAST), 1 - _LEAST)
    return (
        1.0,
        math.log(clamped / (1 - clamped)),
        float(words is TranscriptEnding.FINISHED),
        float(words is TranscriptEnding.OPEN),
    )
