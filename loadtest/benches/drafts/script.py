"""What hesitant callers say, and where they pause: people's phrases, and silences of known length between them.

A phrase has no pause of its own, so each soft end that a turn ought to have is one that its script put there. A pause
is long enough for a draft to begin and mostly for its first audio to be ready, and over before the decision is due.
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
"""Readings of the model store, and seconds from and to: "it was the best of times", without what follows it."""

PAUSE_S = (0.2, 0.65)
TWICE = 0.25
"""Of the turns with a pause, those with two."""

THINK_S = (1.2, 2.2)
"""From the end of an answer to the next turn: more than a second, behind which speech could still be an echo."""


@dataclass(frozen=True, slots=True)
class TurnScript:
    """A turn begins `think_s` after the answer before it; `pauses` are the silences between its phrases, in seconds."""

    think_s: float
    phrases: tuple[int, ...]
    pauses: tuple[float, ...]


def script(seed: int, caller: int, turns: int, hesitating: float, *, phrases: int) -> tuple[TurnScript, ...]:
    """One caller's turns; `hesitating`: the share of them that pause, `phrases`: how many there are to choose from."""
    draw = random.Random(f"{seed}/{caller}")
    return tuple(_turn(draw, hesitating, phrases) for _ in range(turns))


def _turn(draw: random.Random, hesitating: float, phrases: int) -> TurnScript:
    count = 0
    if draw.random() < hesitating:
        count = 2 if draw.random() < TWICE else 1
    pauses = tuple(round(draw.uniform(*PAUSE_S) / FRAME_S) * FRAME_S for _ in range(count))
    return TurnScript(draw.uniform(*THINK_S), tuple(draw.randrange(phrases) for _ in range(count + 1)), pauses)


def human_phrases() -> list[Clip]:
    """The phrases as clips; raises ModelError if the model store lacks the readings."""
    readings = {clip.name: clip for clip in moonshine_clips(open_store(ModelStoreSettings()).path("human-clips"))}
    return [_cut(name, readings[name].pcm(WIRE_RATE).tobytes(), begin, end) for name, begin, end in PHRASES]


def _cut(name: str, pcm: bytes, begin: float, end: float) -> Clip:
    first, last = (round(seconds * WIRE_RATE) * SAMPLE_BYTES for seconds in (begin, end))
    return make_clip(f"{name}+{begin:g}", pcm[first:last])


def hesitations(scripts: Sequence[Sequence[TurnScript]]) -> int:
    """How many pauses all callers make inside their turns."""
    return sum(len(turn.pauses) for turns in scripts for turn in turns)
