"""Settings of noise suppression in the callers' audio."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rejoinder.core.settings.section import Section


class NoiseSettings(Section):
    """Noise suppression in the session host, before voice activity detection and transcription."""

    suppressor: Literal["none", "webrtc"] = "none"
    """`webrtc` is WebRTC's own suppressor. Off by default: most callers' devices already suppress noise."""
    level: int = Field(2, ge=1, le=4)
    """Strength of `webrtc`: levels 1 to 4 reduce room noise by 9, 15, 20 and 23 dB
    (benchmarks/studies/noise_study.py).
    """
