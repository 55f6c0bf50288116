"""What each latency technique buys: the same conversations with it off, against all of them on.

A row is a change of the configuration. Rows are measured one after another on a machine whose speed drifts, so "all on"
is measured before the first and again after the last of them, and a row's worth is judged against the spread of both.

The clips of a conversation differ more than a technique changes any of them: their latencies lie in heaps, and the
median of all jumps from one heap to the next. So a cost is taken clip by clip, each against itself.
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
"""Of the bootstrap; the interval's ends move by less than a millisecond from one seed to another."""


@dataclass(frozen=True, slots=True)
class Technique:
    """`changes` to the settings take it away; `without` says what is done instead."""

    name: str
    without: str
    changes: dict[str, Any] = field(default_factory=dict)


TECHNIQUES = (
    Technique(ALL_ON, "nothing taken away"),
    Technique("drafts", "the reply begins when the turn is taken", {"speculation": {"enabled": False}}),
    Technique(
        "reading-ahead",
        "no partial transcripts, no prefill of what is sure",
        {"interim_transcripts": {"enabled": False}},
    ),
    Technique("guesses-at-dips", "replies begin with the transcript", {"interim_transcripts": {"at_dips": False}}),
    Technique("state-reuse", "each prompt is computed from its beginning", {"llm": {"reuse_state": False}}),
    Technique("quick-ears", "Whisper hears everything", {"stt": {"first_pass_model": ""}}),
    Technique(
        "short-context",
        "Whisper hears everything, padded to 30 s",
        {"stt": {"first_pass_model": "", "short_context": False}},
    ),
    Technique(
        "early-work",
        "work begins after 64 ms of silence, by voice activity alone",
        {"speech": {"soft_end_ms": 64, "drop_20db_threshold": 0.0, "drop_30db_threshold": 0.0}},
    ),
    Technique("words-decide", "the turn model is asked every time", {"endpointing": {"finished_probability": 0.0}}),
    Technique(
        "short-first-segment",
        "the first segment is as long as others",
        {"conversation": {"first_segment_min_words": 24, "first_segment_words": 24}},
    ),
    Technique("chunked-voice", "a segment is heard when all of it is synthesized", {"tts": {"chunked": False}}),
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
    """One technique's turns. `cost_ms`: what a clip's median is above that clip's median with all on, the mean of the
    clips that both have; `low_ms` to `high_ms` with 95% confidence.
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
    """Raises ValueError if no turn of either was answered."""
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
    """Voice to voice of the turns that were answered, in ms, by the clip's file name."""
    found = defaultdict(list)
    for record in records:
        if record.voice_to_voice_ms is not None:
            found[PurePath(record.clip).name].append(record.voice_to_voice_ms)
    return dict(found)


def difference(
    mine: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], seed: int = 0
) -> tuple[float, float, float]:
    """The mean, over the clips in both, of the difference of their medians, and its 95% bootstrap interval.

    Raises ValueError if they have no clip in common.
    """
    clips = sorted(mine.keys() & theirs.keys())
    if not clips:
        raise ValueError("no clip was answered both with the technique and without it")
    rng = np.random.default_rng(seed)
    cost = float(np.mean([np.median(mine[clip]) - np.median(theirs[clip]) for clip in clips]))
    drawn = [_medians(mine[clip], rng) - _medians(theirs[clip], rng) for clip in clips]
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return cost, float(low), float(high)


def _medians(values: Sequence[float], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Of as many values drawn with replacement, many times."""
    drawn: npt.NDArray[np.float64] = np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
    return drawn
