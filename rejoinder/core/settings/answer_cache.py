"""Settings of the answer cache, which repeats stored answers without the language model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rejoinder.core.settings.section import Count, Positive
from rejoinder.core.settings.stages import StageSettings


class AnswerCacheSettings(StageSettings):
    """Cache of earlier answers, in one replica that all hosts share.

    Off by default: a cached answer can be stale, and a similar question is not always the same question.
    `rejoinder/core/reply/answer_cache.py` decides which answers are kept and which questions they answer.
    """

    enabled: bool = False
    """Serve answers from the cache, and keep new ones. It supports English only."""
    max_entries: int = Field(10_000, ge=1, le=100_000)
    """Maximum number of stored answers. Beyond it, the least recently used one is dropped. 10,000 take about 40 MB."""
    ttl_s: Positive = 86_400.0
    """Seconds after which an entry expires. The default is one day."""
    allow_personal: bool = False
    """Also cache questions about the caller: those with "I" or "my", or with a number that may identify a person."""
    allow_time_dependent: bool = False
    """Also cache questions and answers that depend on the time, for example today's weather."""
    later_turns: bool = False
    """Also answer questions after the first turn, if they can be understood without the conversation. Only answers to
    first questions are ever stored.
    """
    semantic: bool = True
    """Also match similar questions, by sentence embedding. Off: a question must have the same words."""
    threshold: float = Field(0.85, ge=0.5, le=1)
    """Minimum cosine similarity of two questions that match. The default is the latency guide's (section 2.3.2)."""
    same_words: bool = True
    """Require a similar question to have the same content words in the same order. With the threshold of 0.85 alone, 22
    of 44 pairs of different questions ("on Monday", "on Tuesday") match; with this, none (`python -m
    benchmarks.studies.answer_study`).
    """
    model: str = "all-minilm-l6-v2"
    """Sentence embedding model, a name in the model store."""
    compute_type: Literal["int8", "float32"] = "int8"
    """Number format of the embedding model's weights."""
    call_timeout_ms: float = Field(50, ge=1, le=1000)
    """Milliseconds after which a lookup is abandoned and the language model answers."""
    max_queue: Count = 16
    """Maximum number of questions that wait for the embedding model. Further ones count as not found."""

    @model_validator(mode="after")
    def _single_replica(self) -> AnswerCacheSettings:
        if self.autoscaling.max_replicas != 1:
            raise ValueError("the answer cache is one replica: autoscaling.max_replicas must be 1")
        if self.on_gpu and not self.semantic:
            raise ValueError("resources.num_gpus must be 0: without semantic the answer cache runs no model")
        return self
