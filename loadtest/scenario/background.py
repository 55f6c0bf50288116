"""Sounds around the callers, at a given ratio of speech to background: noise, babble and music.

All are computed, so that equal arguments give equal samples. Audio is float32 at 24 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from loadtest.scenario.clips import Clip
from rejoinder.core.audio.pcm import WIRE_RATE, Samples, pcm16_to_float

LOOP_S = 20
"""Length of a background in seconds. Callers repeat it."""
VOICES = 6
"""Voices of a babble. With as many, no single one can be understood."""
_TEMPO_S = 0.5
_CHORDS = ((220.0, 277.2, 329.6), (246.9, 311.1, 370.0), (196.0, 246.9, 293.7), (220.0, 261.6, 329.6))
"""Frequencies in Hz of the notes of four chords (A, B, G and A minor)."""


def background(kind: str, clips: Sequence[Clip], snr_db: float, seed: int) -> Samples:
    """Return LOOP_S of a background, whose power is `snr_db` below that of the mean clip's speech.

    Args:
        kind: A key of BACKGROUNDS.
        clips: What the callers say. A babble is made of it.
        snr_db: Ratio of speech to background in decibels.
        seed: Selects the variant.
    """
    speech = [pcm16_to_float(clip.pcm)[clip.speech_start : clip.speech_end] for clip in clips]
    level = float(np.mean([_power(said) for said in speech])) * 10 ** (-snr_db / 10)
    sound = BACKGROUNDS[kind](speech, np.random.default_rng(seed))
    scaled: Samples = (sound * np.sqrt(level / max(_power(sound), 1e-12))).astype(np.float32)
    return scaled


def _power(audio: Samples) -> float:
    return float(np.square(audio, dtype=np.float64).mean()) if audio.size else 0.0


def _noise(speech: Sequence[Samples], draw: np.random.Generator) -> Samples:
    """Return pink noise between 50 and 7000 Hz, as of a street or a fan: equal power in each octave."""
    spectrum = np.fft.rfft(draw.standard_normal(LOOP_S * WIRE_RATE))
    hertz = np.fft.rfftfreq(LOOP_S * WIRE_RATE, 1 / WIRE_RATE)
    shape = np.where((hertz >= 50) & (hertz <= 7000), 1 / np.sqrt(np.maximum(hertz, 50)), 0.0)
    return np.fft.irfft(spectrum * shape).astype(np.float32)


def _babble(speech: Sequence[Samples], draw: np.random.Generator) -> Samples:
    """Return VOICES voices at once: the clips one after another, in another order and from another place each."""
    mixed = np.zeros(LOOP_S * WIRE_RATE, np.float32)
    for _ in range(VOICES):
        order = draw.permutation(len(speech))
        voice = np.resize(np.concatenate([speech[at] for at in order]), mixed.size)
        mixed += np.roll(voice, int(draw.integers(mixed.size))) / np.sqrt(max(_power(voice), 1e-12))
    return mixed


def _music(speech: Sequence[Samples], draw: np.random.Generator) -> Samples:
    """Return chords of three notes with overtones, two a second, each of which fades away, as music on hold."""
    size = round(_TEMPO_S * WIRE_RATE)
    time_s = np.arange(size) / WIRE_RATE
    beats = []
    for beat in range(round(LOOP_S / _TEMPO_S)):
        notes = np.array(_CHORDS[beat // 4 % len(_CHORDS)]) * draw.choice((1.0, 2.0))
        waves = (np.sin(2 * np.pi * hertz * tone * time_s) / tone for hertz in notes for tone in (1, 2, 3, 4))
        beats.append(sum(waves) * np.exp(-3 * time_s))
    return np.concatenate(beats).astype(np.float32)


BACKGROUNDS: Mapping[str, Callable[[Sequence[Samples], np.random.Generator], Samples]] = {
    "noise": _noise,
    "babble": _babble,
    "music": _music,
}
"""Functions that compute a background from the speech of the clips, by its name."""
