"""Noise suppression on the way in: WebRTC's suppressor (the package webrtc-noise-gain), one for each caller.

It takes 10 ms at a time at our own rate and delays the audio by 94 samples (5.9 ms); what does not fill its last 10 ms
waits for the next message. Speech stands out of a room's noise by 15 dB more at level 2, for 12 us of CPU time every
10 ms (0.12% of a core a caller, on the host's event loop) and 0.27 MiB a caller (`noise_study`, two shared cores). It
does little against other voices and sudden sounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.stages.ports import NoiseSuppressor
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.noise import NoiseSettings

FRAME_BYTES = STT_RATE // 100 * SAMPLE_BYTES
DELAY_SAMPLES = 94
NO_GAIN = 0


def suppressors(settings: NoiseSettings) -> Callable[[], NoiseSuppressor] | None:
    """What makes a suppressor for a caller, None if there is none; raises ConfigError if its package is missing."""
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
    """One caller's; `processor` keeps the estimate of the noise."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._rest = b""

    def clean(self, pcm: bytes) -> bytes:
        """The same audio without its noise, as far as whole frames have come."""
        pcm = self._rest + pcm
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        self._rest = pcm[whole:]
        starts = range(0, whole, FRAME_BYTES)
        return b"".join([self._processor.Process10ms(pcm[at : at + FRAME_BYTES]).audio for at in starts])
