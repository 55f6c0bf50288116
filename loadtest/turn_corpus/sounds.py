"""Computed sounds: room noise, coughs, clicks, and filters that make speech sound far away or like a television.

The same arguments always give the same samples; a seed selects one of many variants. Audio is float32 at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rejoinder.core.audio.pcm import STT_RATE, Samples

# The active level is measured over frames of _FRAME samples (20 ms). A frame counts as active if its level is at most
# _ACTIVE_DB dB below that of the loudest frame.
_FRAME = STT_RATE // 50
_ACTIVE_DB = 25.0
_FADE = STT_RATE // 125


def room(seconds: float, level_dbfs: float, seed: int) -> Samples:
    """Return `seconds` of room noise at `level_dbfs`: Gaussian, falling by about 6 dB an octave above 300 Hz."""
    size = round(seconds * STT_RATE)
    if not size:
        return np.zeros(0, np.float32)
    return at_level(_filtered(_white(size, seed), 40, 7000, slope_hz=300), level_dbfs)


def own_room(audio: Samples, seconds: float, seed: int) -> Samples:
    """Return `seconds` of the room noise of a recording: its quietest 120 ms, repeated with overlaps and offsets.

    Zeros are returned if `audio` is shorter than 240 ms.
    """
    size = round(seconds * STT_RATE)
    piece = round(0.12 * STT_RATE)
    if audio.size < 2 * piece:
        return np.zeros(size, np.float32)
    starts = np.arange(0, audio.size - piece, piece // 4)
    power = [float(np.square(audio[start : start + piece]).mean()) for start in starts]
    quiet = audio[starts[int(np.argmin(power))] :][:piece]
    window = np.sin(np.pi * (np.arange(piece) + 0.5) / piece).astype(np.float32)
    noise = np.zeros(size + 2 * piece, np.float32)
    for number, at in enumerate(range(0, size + piece, piece // 2)):
        shifted = np.roll(quiet, (number * 7919 + seed) % piece) * (1 if number % 2 else -1)
        noise[at : at + piece] += (shifted * window)[: noise.size - at]
    return noise[piece // 2 :][:size]


def noise(name: str) -> Samples:
    """Return the noise with this name, KIND-SEED, such as "cough-2". The kinds are the keys of `_NOISES`."""
    kind, _, number = name.partition("-")
    return _NOISES[kind](int(number))


def babble(readers: Sequence[Samples], seconds: float) -> Samples:
    """Return `seconds` of many voices at once: the sum of `readers`, each shifted by another time.

    A signal that is too short is repeated.
    """
    size = round(seconds * STT_RATE)
    mixed = np.zeros(size, np.float32)
    for number, reader in enumerate(readers):
        mixed += at_level(np.resize(np.roll(reader, number * 5 * STT_RATE // 4), size), -30.0)
    return mixed


def far(audio: Samples, seed: int) -> Samples:
    """Return speech as from across a room: with 0.3 s of reverberation (varied by `seed`), and less treble."""
    decay = np.exp(-6.9 * np.arange(round(0.3 * STT_RATE)) / (0.3 * STT_RATE)).astype(np.float32)
    reflections = _white(decay.size, seed) * decay * 0.08
    reflections[0] = 1.0
    size = audio.size + decay.size
    spread = np.fft.irfft(np.fft.rfft(audio, 2 * size) * np.fft.rfft(reflections, 2 * size))[: audio.size]
    return _filtered(spread.astype(np.float32), 100, 4000, slope_hz=1500)


def loudspeaker(audio: Samples) -> Samples:
    """Return speech as a television's loudspeaker plays it: limited to 180 to 6000 Hz."""
    return _filtered(audio, 180, 6000)


def active_dbfs(audio: Samples) -> float:
    """Return the level in dBFS of the frames that are at most 25 dB below the loudest one."""
    frames = audio[: audio.size - audio.size % _FRAME].reshape(-1, _FRAME)
    power = np.square(frames, dtype=np.float64).mean(axis=1) if frames.size else np.zeros(1)
    active = power[power >= power.max() * 10 ** (-_ACTIVE_DB / 10)]
    return float(10 * np.log10(max(float(active.mean()), 1e-12)))


def at_level(audio: Samples, level_dbfs: float) -> Samples:
    """Return the audio scaled to the active level `level_dbfs` (`active_dbfs`)."""
    scaled: Samples = (audio * np.float32(10 ** ((level_dbfs - active_dbfs(audio)) / 20))).astype(np.float32)
    return scaled


def faded(audio: Samples) -> Samples:
    """Return the audio with 8 ms of fade at both ends, so that a cut does not click."""
    if audio.size < 2 * _FADE:
        return audio
    ramp = np.linspace(0, 1, _FADE, dtype=np.float32)
    smoothed = audio.copy()
    smoothed[:_FADE] *= ramp
    smoothed[-_FADE:] *= ramp[::-1]
    return smoothed


def _cough(seed: int) -> Samples:
    """Return a cough of one to three bursts, each with a sharp onset and noise through the resonances of an open mouth.

    `seed` selects the number of bursts, their length and their pitch.
    """
    bursts = []
    for number in range(1 + seed % 3):
        size = round((0.22 + 0.04 * (seed % 4)) * STT_RATE)
        envelope = np.exp(-np.arange(size) / (0.06 * STT_RATE)) + 0.25 * np.exp(-np.arange(size) / (0.15 * STT_RATE))
        source = _white(size, 100 * seed + number) + 0.4 * _buzz(size, 130 + 20 * (seed % 5))
        voiced = sum(
            gain * _filtered(source, centre * 0.8, centre * 1.25)
            for gain, centre in ((1.0, 600 + 40 * seed), (0.8, 1400 + 60 * seed), (0.5, 2700))
        )
        bursts += [(voiced * envelope).astype(np.float32), np.zeros(round(0.14 * STT_RATE), np.float32)]
    return np.concatenate(bursts)


def _throat(seed: int) -> Samples:
    size = round((0.35 + 0.05 * (seed % 3)) * STT_RATE)
    wave = _buzz(size, 85 + 10 * (seed % 4)) + 0.5 * _white(size, seed)
    envelope = np.sin(np.pi * np.arange(size) / size) ** 0.5
    return (_filtered(wave, 150, 1200, slope_hz=400) * envelope).astype(np.float32)


def _clicks(seed: int) -> Samples:
    audio = np.zeros(round(1.2 * STT_RATE), np.float32)
    for number in range(8):
        at = round((0.05 + 0.14 * number + 0.013 * ((seed + number) % 5)) * STT_RATE)
        size = round(0.012 * STT_RATE)
        audio[at : at + size] += _white(size, seed * 31 + number) * np.exp(-np.arange(size) / (0.003 * STT_RATE))
    return audio


def _slam(seed: int) -> Samples:
    size = round(0.5 * STT_RATE)
    envelope = np.exp(-np.arange(size) / (0.05 * STT_RATE))
    return (_filtered(_white(size, seed), 40, 900, slope_hz=120) * envelope).astype(np.float32)


def _breath(seed: int) -> Samples:
    size = round(0.7 * STT_RATE)
    envelope: Samples = np.sin(np.pi * np.arange(size) / size).astype(np.float32) ** 2
    return (_filtered(_white(size, seed), 500, 5000, slope_hz=1500) * envelope).astype(np.float32)


def _hum(seed: int) -> Samples:
    size = round(2.0 * STT_RATE)
    return (_buzz(size, 50 + 10 * (seed % 2)) + 0.2 * _filtered(_white(size, seed), 60, 500)).astype(np.float32)


def _mmhmm(seed: int) -> Samples:
    """Return a hummed "mm-hmm": two nasal sounds of rising pitch, and breath between them. `seed` selects the pitch.

    The energy of a nasal lies below 500 Hz. Synthetic voices cannot say it: they spell it, or open the mouth.
    """
    parts = []
    for number, length_s in enumerate((0.16, 0.26)):
        size = round(length_s * STT_RATE)
        hz = (110 + 25 * (seed % 5)) * (1 + 0.25 * number)
        source = _buzz(size, hz) + 0.02 * _white(size, seed + number)
        nasal = _filtered(source, 80, 450) + 0.15 * _filtered(source, 900, 1300) + 0.05 * _filtered(source, 2000, 2600)
        parts += [nasal * np.sin(np.pi * np.arange(size) / size) ** 0.4, 0.02 * _breath(seed)[: round(0.06 * STT_RATE)]]
    return np.concatenate(parts[:-1]).astype(np.float32)


_NOISES: dict[str, Callable[[int], Samples]] = {
    "cough": _cough,
    "throat": _throat,
    "clicks": _clicks,
    "slam": _slam,
    "breath": _breath,
    "hum": _hum,
    "mmhmm": _mmhmm,
}


def _white(size: int, seed: int) -> Samples:
    # PCG64 is specified, so a seed gives the same numbers with every version of numpy.
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(size, dtype=np.float64).astype(np.float32)


def _buzz(size: int, hz: float) -> Samples:
    """Return the harmonics of a pitch up to 4 kHz, with amplitudes that fall as 1/n."""
    time = np.arange(size) / STT_RATE
    wave = np.zeros(size)
    for n in range(1, int(4000 / hz)):
        wave += np.sin(2 * np.pi * hz * n * time) / n
    return wave.astype(np.float32)


def _filtered(audio: Samples, low_hz: float, high_hz: float, *, slope_hz: float = 0.0) -> Samples:
    """Return the audio's frequencies from `low_hz` to `high_hz`.

    Above `slope_hz`, if it is not 0, the amplitude falls by 6 dB an octave.
    """
    spectrum = np.fft.rfft(audio)
    hz = np.fft.rfftfreq(audio.size, 1 / STT_RATE)
    gain = ((hz >= low_hz) & (hz <= high_hz)).astype(np.float64)
    if slope_hz:
        gain *= np.minimum(1.0, slope_hz / np.maximum(hz, 1.0))
    return np.fft.irfft(spectrum * gain, audio.size).astype(np.float32)
