"""The configuration's part about noise in the callers' audio."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rejoinder.core.settings.section import Section


class NoiseSettings(Section):
    """A suppressor cleans each caller's audio before anything hears it, in the host. `webrtc` is WebRTC's own."""

    suppressor: Literal["none", "webrtc"] = "none"
    # Of webrtc: 9, 15, 20 and 23 dB off a room's noise (benchmarks/studies/noise_study.py).
    level: int = Field(2, ge=1, le=4)
