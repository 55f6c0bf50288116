"""Scripts of hesitant callers: recorded phrases, with pauses of known length between them.

A phrase has no pause inside, so every tentative end of speech in a turn is one that the script planned. A pause is long
enough to start a speculative reply, and mostly long enough for its first audio. It is too short to end the turn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.scenario.clips import Clip, make_clip
from loadtest.scenario.utterances import FRAME_S
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store import open_store
from rejoinder.store.human_clips import moonshine_clips

PHRASES = (
    ("two_cities.wav@0.8", 0.40, 1.88),
    ("two_cities.wav@4.6", 0.42, 1.58),
    ("two_cities.wav@8.3", 0.50, 1.80),
    ("two_cities.wav@13.1", 0.36, 1.66),
    ("two_cities.wav@13.1", 2.02, 3.56),
    ("two_cities.wav@17.1", 0.46, 1.64),
    ("two_cities.wav@17.1", 1.86, 3.32),
    ("two_cities.wav@20.9", 0.34, 1.66),
    ("two_cities.wav@20.9", 1.82, 3.08),
)
"""Phrases as (recording in the model store, start in seconds, end in seconds). A phrase is, for example, "it was the
best of times"."""

PAUSE_S = (0.2, 0.65)
"""Shortest and longest pause in seconds."""
TWICE = 0.25
"""Share of the hesitant turns that have two pauses instead of one."""

THINK_S = (1.2, 2.2)
"""Shortest and longest time from the end of an answer to the next turn, in seconds. In the first second, the server may
take speech for an echo."""


@dataclass(frozen=True, slots=True)
class TurnScript:
    """Script of one turn.

    Attributes:
        think_s: Time from the end of the previous answer to the start of the turn, in seconds.
        phrases: Indices in `PHRASES` of the phrases to speak.
        pauses: Silences between the phrases, in seconds.
    """

    think_s: float
    phrases: tuple[int, ...]
    pauses: tuple[float, ...]


def script(seed: int, caller: int, turns: int, hesitating: float, *, phrases: int) -> tuple[TurnScript, ...]:
    """Return the turns of one caller. The same arguments give the same turns.

    Args:
        seed: Seed of the run.
        caller: Number of the caller. Each number gives other turns.
        turns: Number of turns.
        hesitating: Probability that a turn has a pause inside, 0 to 1.
        phrases: Number of phrases to choose from: the first ones of `PHRASES`.
    """
    draw = random.Random(f"{seed}/{caller}")
    return tuple(_turn(draw, hesitating, phrases) for _ in range(turns))


def _turn(draw: random.Random, hesitating: float, phrases: int) -> TurnScript:
    count = 0
    if draw.random() < hesitating:
        count = 2 if draw.random() < TWICE else 1
    pauses = tuple(round(draw.uniform(*PAUSE_S) / FRAME_S) * FRAME_S for _ in range(count))
    return TurnScript(draw.uniform(*THINK_S), tuple(draw.randrange(phrases) for _ in range(count + 1)), pauses)


def human_phrases() -> list[Clip]:
    """Return the phrases of `PHRASES` as clips. Raise ModelError if the model store does not have the recordings."""
    readings = {clip.name: clip for clip in moonshine_clips(open_store(ModelStoreSettings()).path("human-clips"))}
    return [_cut(name, readings[name].pcm(WIRE_RATE).tobytes(), begin, end) for name, begin, end in PHRASES]


def _cut(name: str, pcm: bytes, begin: float, end: float) -> Clip:
    first, last = (round(seconds * WIRE_RATE) * SAMPLE_BYTES for seconds in (begin, end))
    return make_clip(f"{name}+{begin:g}", pcm[first:last])


def hesitations(scripts: Sequence[Sequence[TurnScript]]) -> int:
    """Return the number of pauses inside turns, over all callers."""
    return sum(len(turn.pauses) for turns in scripts for turn in turns)
