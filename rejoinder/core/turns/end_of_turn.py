"""Probability that a turn is over (`endpointing` computes the silence that ends the turn from it).

Two signals are combined. The turn detector judges the prosody of the audio, and the ending of the transcript shows the
grammar. Their errors differ, so a logistic regression of both is better than either. It weights the turn detector's
log-odds, and adds an offset if the transcript looks complete (FINISHED) or incomplete (OPEN). The weights are fitted on
human speech (`python -m benchmarks.studies.turn_curves`).
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
        bias: Constant that is always added.
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
        turn_model: The turn detector's probability that the turn is over, 0 to 1.
        words: The transcript's ending, or None if there is no transcript yet.
        weights: The weights of the regression.
    """
    factors = (weights.bias, weights.turn_model, weights.finished, weights.open)
    log_odds = sum(factor * value for factor, value in zip(factors, regression_inputs(turn_model, words), strict=True))
    return 1 / (1 + math.exp(-log_odds))


def regression_inputs(turn_model: float, words: TranscriptEnding | None) -> tuple[float, float, float, float]:
    """Return the four inputs of the regression, one per field of `FusionWeights`.

    They are 1, the turn detector's log-odds, and 1 or 0 for a FINISHED ending and for an OPEN ending.
    """
    clamped = min(max(turn_model, _LEAST), 1 - _LEAST)
    return (
        1.0,
        math.log(clamped / (1 - clamped)),
        float(words is TranscriptEnding.FINISHED),
        float(words is TranscriptEnding.OPEN),
    )
