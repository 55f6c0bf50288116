"""Noise suppression of callers' audio with WebRTC's suppressor (package webrtc-noise-gain), one instance per caller.

The suppressor processes frames of 10 ms at 16 kHz and delays the audio by 94 samples (5.9 ms). Samples that do not fill
a frame are kept for the next call. At level 2 it improves the signal-to-noise ratio in a room by 15 dB. It costs 12 us
of CPU time per 10 ms frame (0.12% of a core per caller, on the host's event loop) and 0.27 MiB per caller
(`benchmarks/studies/noise_study.py`, two shared cores). It has little effect on other voices and sudden sounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.stages.ports import NoiseSuppressor
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.background import NoiseSettings

FRAME_BYTES = STT_RATE // 100 * SAMPLE_BYTES
DELAY_SAMPLES = 94
NO_GAIN = 0


def suppressors(settings: NoiseSettings) -> Callable[[], NoiseSuppressor] | None:
    """Return a factory that makes one caller's suppressor, or None if suppression is off.

    Raises ConfigError if the package webrtc-noise-gain is missing.
    """
    if settings.suppressor == "none":
        return None
    try:
        from webrtc_noise_gain import AudioProcessor
    except ImportError as error:
        raise ConfigError(
            f"webrtc needs the package webrtc-noise-gain ({error}).",
            "Run `pip install -e '.[noise]'` in the checkout, or set it to none.",
            field="args.noise.suppressor",
        ) from None
    return lambda: WebRtcSuppressor(AudioProcessor(NO_GAIN, settings.level))


class WebRtcSuppressor:
    """Noise suppressor of one caller."""

    def __init__(self, processor: Any) -> None:
        """Create a suppressor around a `webrtc_noise_gain.AudioProcessor`, which keeps the noise estimate."""
        self._processor = processor
        self._remainder = b""

    def clean(self, pcm: bytes) -> bytes:
        """Return the denoised audio of all complete frames, as 16 kHz PCM. It is empty if no frame is complete."""
        pcm = self._remainder + pcm
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        self._remainder = pcm[whole:]
        starts = range(0, whole, FRAME_BYTES)
        return b"".join([self._processor.Process10ms(pcm[at : at + FRAME_BYTES]).audio for at in starts])
