"""What is sent: people's voices from the model store, with pauses as a conversation has them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from rejoinder.core.audio.pcm import float_to_pcm16
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store import ModelStatus, open_store
from rejoinder.store.human_clips import moonshine_clips

READING_RATE = 48_000
_CLIPS = "human-clips"
# A quiet room behind a headset's noise suppression; a discontinuous encoder takes it for silence, as it should.
ROOM_DBFS = -75.0

Pcm = npt.NDArray[np.int16]


def utterances(rate: int) -> list[Pcm]:
    """Two people's sentences at a rate, 16-bit mono; raises ConfigError if the store does not have them."""
    store = open_store(ModelStoreSettings())
    if store.status(_CLIPS) is ModelStatus.ABSENT:
        raise ConfigError(
            "the model store has no human speech.", f"Run `rejoinder models pull {_CLIPS}`.", field=_CLIPS
        )
    return [clip.pcm(rate) for clip in moonshine_clips(store.path(_CLIPS))]


def reading(seconds: float, rate: int = READING_RATE) -> Pcm:
    """So much continuous speech, repeated if the store's runs out."""
    spoken = np.concatenate(utterances(rate))
    return np.resize(spoken, round(seconds * rate))


def room(seconds: float, rate: int = READING_RATE, seed: int = 1) -> Pcm:
    """So much of a quiet room."""
    noise = np.random.default_rng(seed).normal(0, 10 ** (ROOM_DBFS / 20), round(seconds * rate))
    return np.frombuffer(float_to_pcm16(noise), "<i2")


def caller_side(seconds: float) -> Pcm:
    """Speaks in the first half, then sits in a quiet room."""
    return np.concatenate([reading(seconds / 2), room(seconds / 2)])


def agent_side(seconds: float) -> Pcm:
    """Silent as a synthesizer is in the first half (zeros: there is no room around it), then speaks."""
    spoken = reading(seconds / 2)
    return np.concatenate([np.zeros_like(spoken), spoken])


def resample(pcm: Pcm, rate: int, wanted: int) -> Pcm:
    """At another rate."""
    converted: Pcm = soxr.resample(pcm, rate, wanted).astype(np.int16)
    return converted
