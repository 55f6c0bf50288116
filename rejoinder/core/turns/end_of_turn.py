"""One probability that the turn is over, from all that was heard: the turn model's word, and how the words end.

The turn model listens to the melody, the transcript's ending knows the grammar; each is wrong where the other need not
be. They are joined as a logistic regression joins evidence: on the scale of log-odds the turn model's opinion is
weighed, and an ending that reads finished or open is added. The weights come from human speech
(`python -m benchmarks.studies.turn_curves`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rejoinder.core.turns.transcript_ending import TranscriptEnding

_LEAST = 0.01
"""A model that says 0 or 1 is taken to say so much: nobody is that sure."""


@dataclass(frozen=True, slots=True)
class FusionWeights:
    """Of the log-odds; a doubtful ending adds nothing."""

    bias: float
    turn_model: float
    finished: float
    open: float


WEIGHTS = FusionWeights(bias=0.61, turn_model=0.49, finished=-0.41, open=-0.62)
"""Fitted on 535 silences of read speech. There an ending that reads finished speaks against the end, beside the turn
model: speech recognition punctuates every fragment."""


def complete(turn_model: float, words: TranscriptEnding | None, weights: FusionWeights = WEIGHTS) -> float:
    """The probability that the turn is over; `words`: how the transcript ends, None if there is none yet."""
    factors = (weights.bias, weights.turn_model, weights.finished, weights.open)
    odds = sum(factor * found for factor, found in zip(factors, evidence(turn_model, words), strict=True))
    return 1 / (1 + math.exp(-odds))


def evidence(turn_model: float, words: TranscriptEnding | None) -> tuple[float, float, float, float]:
    """What the weights are multiplied with, in their order."""
    sure = min(max(turn_model, _LEAST), 1 - _LEAST)
    return (
        1.0,
        math.log(sure / (1 - sure)),
        float(words is TranscriptEnding.FINISHED),
        float(words is TranscriptEnding.OPEN),
    )
