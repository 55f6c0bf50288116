"""Settings of other sounds in the callers' audio: noise suppression, and background speech.

`rejoinder.core.turns.caller_level` uses those of background speech.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rejoinder.core.settings.section import Positive, Section


class BackgroundSettings(Section):
    """Settings of background speech, which is recognized by its level and by its words.

    Levels are those of the loud parts of an utterance: the 90th percentile of its 32 ms windows. They are about 4 dB
    above the active speech level.
    """

    enabled: bool = True
    """Ignore speech that is much quieter than the caller's."""
    gap_db: Positive = 12
    """Speech that is this much quieter than the caller's is ignored, in dB."""
    doubtful_gap_db: Positive = 8
    """Speech that is this much quieter than the caller's is ignored if its words do not address the agent, in dB."""
    onset_gap_db: Positive = 16
    """A window that is this much quieter than the caller's speech starts no utterance, in dB. It does not even pause a
    reply.
    """
    unknown_caller_dbfs: float = Field(-36, ge=-90, le=0)
    """Until the caller's level is known, quieter speech is ignored if its words do not address the agent, in dBFS.
    Ordinary recordings of people reach down to -35 dBFS.
    """
    least_dbfs: float = Field(-40, ge=-90, le=0)
    """Until the caller's level is known, quieter speech is ignored, in dBFS."""


class NoiseSettings(Section):
    """Noise suppression in the session host, before voice activity detection and transcription."""

    suppressor: Literal["none", "webrtc"] = "none"
    """`webrtc` is WebRTC's own suppressor. Off by default: most callers' devices already suppress noise."""
    level: int = Field(2, ge=1, le=4)
    """Strength of `webrtc`: levels 1 to 4 reduce room noise by 9, 15, 20 and 23 dB
    (benchmarks/studies/noise_study.py).
    """
