"""Validation of the audio that engines receive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, Samples
from rejoinder.core.errors import CallerError

Pcm = bytes | npt.NDArray[np.int16] | Samples
"""Mono 16 kHz audio: PCM bytes, int16 samples, or float32 samples in [-1, 1)."""

_INT16_SCALE = np.float32(1 / 32_768)


def speech_samples(pcm: Pcm, max_s: float) -> Samples:
    """Return `pcm` (16-bit PCM bytes, int16 or float32 samples) as float32 samples in [-1, 1).

    Raises CallerError for an odd number of bytes, more than one channel, or more than `max_s` seconds.
    """
    if isinstance(pcm, bytes):
        if len(pcm) % SAMPLE_BYTES:
            remedy = "Send whole 16-bit samples."
            raise CallerError(f"audio of {len(pcm)} bytes holds half a sample.", remedy, code="invalid_audio")
        pcm = np.frombuffer(pcm, dtype="<i2")
    if pcm.ndim != 1:
        raise CallerError(f"audio has shape {pcm.shape}.", "Send one channel.", code="invalid_audio")
    if pcm.size > max_s * STT_RATE:
        message = f"audio of {pcm.size / STT_RATE:.1f} s exceeds {max_s:g} s."
        raise CallerError(message, "Send shorter utterances.", code="audio_too_long")
    if pcm.dtype == np.float32:
        return pcm.astype(np.float32, copy=False)
    return pcm.astype(np.float32) * _INT16_SCALE
