"""Audio for the bandwidth measurements: human speech from the model store, and room noise between turns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from rejoinder.core.audio.pcm import float_to_pcm16
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store import ModelStatus, open_store
from rejoinder.store.human_clips import moonshine_clips

SAMPLE_RATE = 48_000
_CLIPS = "human-clips"
# Noise of a quiet room after a headset's noise suppression, in dBFS. An encoder with DTX classifies it as silence.
ROOM_DBFS = -75.0

Pcm = npt.NDArray[np.int16]


def utterances(rate: int) -> list[Pcm]:
    """Return recorded sentences of two people, 16-bit mono at `rate` Hz.

    Raises:
        ConfigError: The model store does not have the recordings.
    """
    store = open_store(ModelStoreSettings())
    if store.status(_CLIPS) is ModelStatus.ABSENT:
        raise ConfigError(
            "the model store has no human speech.", f"Run `rejoinder models pull {_CLIPS}`.", field=_CLIPS
        )
    return [clip.pcm(rate) for clip in moonshine_clips(store.path(_CLIPS))]


def continuous_speech(seconds: float, rate: int = SAMPLE_RATE) -> Pcm:
    """Return `seconds` of speech at `rate` Hz without pauses between sentences.

    The recordings repeat if they are too short.
    """
    spoken = np.concatenate(utterances(rate))
    return np.resize(spoken, round(seconds * rate))


def room_noise(seconds: float, rate: int = SAMPLE_RATE, seed: int = 1) -> Pcm:
    """Return `seconds` of white noise at `rate` Hz with the level of a quiet room, `ROOM_DBFS`."""
    noise = np.random.default_rng(seed).normal(0, 10 ** (ROOM_DBFS / 20), round(seconds * rate))
    return np.frombuffer(float_to_pcm16(noise), "<i2")


def caller_side(seconds: float) -> Pcm:
    """Return the caller's audio at 48 kHz: speech in the first half, a quiet room in the second."""
    return np.concatenate([continuous_speech(seconds / 2), room_noise(seconds / 2)])


def agent_side(seconds: float) -> Pcm:
    """Return the agent's audio at 48 kHz: silence in the first half, speech in the second.

    The silent samples are 0, because a speech synthesizer adds no room noise.
    """
    spoken = continuous_speech(seconds / 2)
    return np.concatenate([np.zeros_like(spoken), spoken])


def resample(pcm: Pcm, rate: int, new_rate: int) -> Pcm:
    """Return 16-bit audio, converted from `rate` to `new_rate` Hz."""
    converted: Pcm = soxr.resample(pcm, rate, new_rate).astype(np.int16)
    return converted
