"""The answer cache's part of the configuration. Users import it from `rejoinder.core.settings.settings`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rejoinder.core.settings.section import Count, Positive
from rejoinder.core.settings.stages import StageSettings


class AnswerCacheSettings(StageSettings):
    """Answers that were given before, in one replica shared by all hosts.

    Off by default: a cached answer is as old as its entry, and the nearest question is not always the same question.
    What may be kept and what may be said again is decided by rejoinder/core/reply/answer_cache.py.
    """

    enabled: bool = False
    max_entries: int = Field(10_000, ge=1, le=100_000)
    ttl_s: Positive = 86_400.0
    # Questions about the caller (I, my, numbers that identify), and those whose answer changes with time.
    allow_personal: bool = False
    allow_time_dependent: bool = False
    # A question inside a conversation that reads as if it stood alone may be answered from what openings were answered.
    later_turns: bool = False
    # Nearest questions count, not only equal ones.
    semantic: bool = True
    threshold: float = Field(0.85, ge=0.5, le=1)
    # Two questions are the same only if their content words are, in their order: at 0.85 alone 22 of 44 dangerous pairs
    # ("on Monday", "on Tuesday") pass, with this none (`python -m benchmarks.studies.answer_study`).
    same_words: bool = True
    model: str = "all-minilm-l6-v2"
    compute_type: Literal["int8", "float32"] = "int8"
    # A lookup that takes longer is given up and the language model asked.
    call_timeout_ms: float = Field(50, ge=1, le=1000)
    # Questions that wait for the model of sentences; more are misses.
    max_queue: Count = 16

    @model_validator(mode="after")
    def _one_for_all(self) -> AnswerCacheSettings:
        if self.autoscaling.max_replicas != 1:
            raise ValueError("the answer cache is one replica: autoscaling.max_replicas must be 1")
        return self
