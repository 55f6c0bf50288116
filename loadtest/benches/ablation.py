"""Latency ablation: the same conversations with one technique off, compared with all techniques on.

Each row of the result is one change of the configuration. Rows are measured one after another on a machine whose speed
drifts. "All on" is therefore measured before the first row and again after the last, and both measurements form the
baseline.

Latencies differ more from clip to clip than with and without a technique. They form clusters, and the median over all
clips jumps from one cluster to another. The cost of turning a technique off is therefore computed per clip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.results.spread import VOICE_TO_VOICE, Spread, spreads
from loadtest.results.turn_record import TurnRecord

ALL_ON = "all-on"
RESAMPLES = 2000
"""Number of bootstrap resamples. With this number, the ends of the confidence interval differ by less than 1 ms between
seeds."""


@dataclass(frozen=True, slots=True)
class Technique:
    """A latency technique that can be turned off.

    Attributes:
        name: Name of the technique.
        without: What the system does while the technique is off, in words.
        changes: Settings of the server that turn the technique off, nested by section as in ray_config.yaml.
    """

    name: str
    without: str
    changes: dict[str, Any] = field(default_factory=dict)


TECHNIQUES = (
    Technique(ALL_ON, "nothing turned off"),
    Technique("drafts", "replies start at the end of turn", {"speculation": {"enabled": False}}),
    Technique(
        "reading-ahead",
        "no interim transcripts, no prefill of stable words",
        {"interim_transcripts": {"enabled": False}},
    ),
    Technique(
        "guesses-at-dips",
        "speculative replies wait for the final transcript",
        {"interim_transcripts": {"at_dips": False}},
    ),
    Technique("state-reuse", "each prompt is computed from its beginning", {"llm": {"reuse_state": False}}),
    Technique("first-pass", "Whisper transcribes everything", {"stt": {"first_pass_model": ""}}),
    Technique(
        "short-context",
        "Whisper transcribes everything, padded to 30 s",
        {"stt": {"first_pass_model": "", "short_context": False}},
    ),
    Technique(
        "early-work",
        "work starts after 64 ms of silence, by voice activity alone",
        {"speech": {"soft_end_ms": 64, "drop_30db_threshold": 0.0, "drop_40db_threshold": 0.0}},
    ),
    Technique("words-decide", "the turn detector is always asked", {"endpointing": {"ask_after_ms": 0.0}}),
    Technique(
        "message-end",
        "the language model is not asked whether the message ends",
        {"endpointing": {"message_end": False}},
    ),
    Technique(
        "short-first-segment",
        "the first segment is as long as the others",
        {"conversation": {"first_segment_min_words": 24, "first_segment_words": 24}},
    ),
    Technique("chunked-voice", "a segment plays when all of it is synthesized", {"tts": {"chunked": False}}),
    Technique(
        "vad-column",
        "the latency guide's default column (section 1.3) instead of its optimized one",
        {
            "speech": {"threshold": 0.3, "release_threshold": 0.3, "min_speech_ms": 200},
            "endpointing": {"min_silence_ms": 800, "fallback_silence_ms": 1000},
        },
    ),
)


@dataclass(frozen=True, slots=True)
class AblationRow:
    """Result of turning one technique off.

    Attributes:
        technique: The technique.
        spread: Statistics of the voice-to-voice latency of all answered turns.
        stages: Statistics of the milliseconds that each stage adds to these turns, by name of the stage.
        unanswered: Number of turns without an answer.
        premature: Number of replies that started before the caller had finished.
        cost_ms: Mean over the clips of a clip's median latency with the technique off minus its median with all
            techniques on, in milliseconds.
        low_ms: Lower end of the 95% confidence interval of `cost_ms`.
        high_ms: Upper end of the 95% confidence interval of `cost_ms`.
    """

    technique: Technique
    spread: Spread
    stages: dict[str, Spread]
    unanswered: int
    premature: int
    cost_ms: float
    low_ms: float
    high_ms: float


def row(technique: Technique, records: Sequence[TurnRecord], baseline: Sequence[TurnRecord]) -> AblationRow:
    """Return the result of turning a technique off, compared with the baseline.

    Args:
        technique: The technique that was turned off.
        records: Turns with the technique off.
        baseline: Turns with all techniques on.

    Raises:
        ValueError: No turn of `records` was answered, or no clip was answered in both `records` and `baseline`.
    """
    table = spreads(records)
    if VOICE_TO_VOICE not in table:
        raise ValueError(f"no turn of {technique.name} was answered")
    cost, low, high = difference(by_clip(records), by_clip(baseline))
    return AblationRow(
        technique,
        table.pop(VOICE_TO_VOICE),
        table,
        unanswered=sum(not record.ok for record in records),
        premature=sum(record.premature_replies for record in records),
        cost_ms=round(cost, 1),
        low_ms=round(low, 1),
        high_ms=round(high, 1),
    )


def by_clip(records: Sequence[TurnRecord]) -> dict[str, list[float]]:
    """Return the voice-to-voice latencies of the answered turns in milliseconds, by the clip's file name.

    Clips without an answered turn are left out.
    """
    latencies = defaultdict(list)
    for record in records:
        if record.voice_to_voice_ms is not None:
            latencies[PurePath(record.clip).name].append(record.voice_to_voice_ms)
    return dict(latencies)


def difference(
    without: Mapping[str, Sequence[float]], baseline: Mapping[str, Sequence[float]], seed: int = 0
) -> tuple[float, float, float]:
    """Return how much longer latencies are without a technique, and a 95% bootstrap interval.

    The result is the mean, over the clips in both mappings, of the clip's median without minus its median with the
    technique.

    Args:
        without: Latencies without the technique, by clip.
        baseline: Latencies with all techniques, by clip.
        seed: Seed of the bootstrap.

    Returns:
        (mean difference, lower end, upper end of its interval), in the unit of the latencies.

    Raises:
        ValueError: No clip is in both `without` and `baseline`.
    """
    clips = sorted(without.keys() & baseline.keys())
    if not clips:
        raise ValueError("no clip was answered both with the technique and without it")
    rng = np.random.default_rng(seed)
    cost = float(np.mean([np.median(without[clip]) - np.median(baseline[clip]) for clip in clips]))
    drawn = [_medians(without[clip], rng) - _medians(baseline[clip], rng) for clip in clips]
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return cost, float(low), float(high)


def _medians(values: Sequence[float], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the medians of `RESAMPLES` bootstrap samples of `values`."""
    drawn: npt.NDArray[np.float64] = np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
    return drawn
