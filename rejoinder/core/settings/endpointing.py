"""Settings of endpointing: the silence after which a turn ends (see `rejoinder.core.turns.endpointing`)."""

from __future__ import annotations

from pydantic import Field, model_validator

from rejoinder.core.settings.section import Positive, Section


class EndpointingSettings(Section):
    """Endpointing with `semantic_vad`: how long to wait in silence before the turn ends.

    The probability that the turn is over is computed from all evidence (rejoinder/core/turns/end_of_turn.py). The turn
    ends at once if it reaches the threshold that belongs to `cut_off_budget` (rejoinder/core/turns/endpointing.py).
    """

    cut_off_budget: float = Field(0.03, gt=0, lt=1)
    """Share of the caller's pauses of 0.3 to 1 s that may be taken for the end of the turn, with the eagerness "auto".
    A smaller budget makes more turns wait for `patience_ms`. The threshold for each budget was measured on the
    development part of the turn-taking corpus (docs/results/endpointing.md).
    """
    min_silence_ms: float = Field(100, ge=0, le=2000)
    """Shortest silence, in milliseconds, that ends a turn."""
    patience_ms: Positive = 1100
    """Silence, in milliseconds, that ends a turn which may be over, but not with the required probability. The default
    outlasts a pause of 1 s. A caller who has paused for longer gets more time.
    """
    max_silence_ms: Positive = 2000
    """Silence, in milliseconds, that ends a turn which is certainly not over. No turn waits longer."""
    fallback_silence_ms: Positive = 1000
    """Silence, in milliseconds, that ends a turn if no evidence arrives within `verdict_timeout_ms`."""
    verdict_timeout_ms: Positive = 400
    """Milliseconds after the tentative end of speech in which evidence must arrive. Later evidence counts too, if the
    turn has not ended by then.
    """
    ask_after_ms: float = Field(200, ge=0, le=2000)
    """Milliseconds of silence after which the turn detector is called, if the words have not decided by then. Its
    training data had 200.
    """
    message_end: bool = True
    """Ask the language model whether the caller's message ends with the words so far. It needs an engine that can tell
    (`LlmSettings.judges_message_end`).
    """
    table: str = ""
    """File of weights and thresholds, as `python -m benchmarks.studies.calibrate_endpointing` writes it. "" for the
    table of the product.
    """

    @model_validator(mode="after")
    def _ordered(self) -> EndpointingSettings:
        if not self.min_silence_ms <= self.fallback_silence_ms <= self.max_silence_ms:
            raise ValueError("needs min_silence_ms <= fallback_silence_ms <= max_silence_ms")
        if not self.min_silence_ms <= self.patience_ms <= self.max_silence_ms:
            raise ValueError("needs min_silence_ms <= patience_ms <= max_silence_ms")
        return self
