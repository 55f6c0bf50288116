"""Level gate: tells the caller's speech from that of a television or of other people in the room.

The caller is close to the microphone, so the others are quieter. What counts is the level relative to the caller's own.
It is known after the first turn. Much quieter speech is ignored. Somewhat quieter speech is ignored unless its words
address the agent (`barge_in.is_addressed`). Before the first turn, levels in dBFS stand in for the caller's.

A caller may move away from the microphone. While sounds are refused, the caller's level sinks by half a dB a second, by
at most SINK_DB, until the caller is heard again.

Levels are the 90th percentile of the power of 32 ms windows, in dBFS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW
from rejoinder.core.settings.background import BackgroundSettings

SINK_DB = 6.0
SINK_DB_PER_WINDOW = 0.5 * VAD_WINDOW / STT_RATE
"""Fall of the caller's level for each refused window of speech: half a dB a second."""

RISE, FALL = 0.7, 0.3
"""Share by which the caller's level moves to that of a new turn, if the turn is louder or quieter."""

BACKGROUND_MARGIN_DB = 3.0
BACKGROUND_S = 20.0
"""For this time after background speech was dismissed, a sound must be BACKGROUND_MARGIN_DB louder to start an
utterance. Otherwise a television would pause every reply again and again."""
_NEAR_CALLER_DB = 6.0

_FULL_SCALE_POWER = 32_768.0**2


@dataclass(frozen=True, slots=True)
class CallerLevel:
    """What is known of the levels in one call.

    Attributes:
        caller_dbfs: Level of the caller's speech. None until the first turn.
        sunk_db: How much of it was taken off because sounds were refused.
        background_dbfs: Level of the last background speech that was dismissed. None if there was none.
        background_until: Sample until which `background_dbfs` counts.
    """

    caller_dbfs: float | None = None
    sunk_db: float = 0.0
    background_dbfs: float | None = None
    background_until: int = 0

    @property
    def reference_dbfs(self) -> float | None:
        """The level that speech is compared with; None until the first turn."""
        return None if self.caller_dbfs is None else self.caller_dbfs - self.sunk_db

    def onset_dbfs(self, sample: int, settings: BackgroundSettings) -> float:
        """Return the level below which a window at `sample` starts no utterance; minus infinity if there is none."""
        reference = self.reference_dbfs
        if not settings.enabled or reference is None:
            return -math.inf
        lowest = reference - settings.onset_gap_db
        if self.background_dbfs is None or sample >= self.background_until:
            return lowest
        return max(lowest, min(self.background_dbfs + BACKGROUND_MARGIN_DB, reference - _NEAR_CALLER_DB))

    def doubtful(self, level_dbfs: float, settings: BackgroundSettings) -> bool:
        """Return True if speech of this level may be background, so its words must be checked.

        If background speech was dismissed before the first turn, louder parts of it are doubtful too.
        """
        reference = self.reference_dbfs
        if reference is not None:
            limit = reference - settings.doubtful_gap_db
        else:
            background = -math.inf if self.background_dbfs is None else self.background_dbfs
            limit = max(settings.unknown_caller_dbfs, background + settings.doubtful_gap_db)
        return settings.enabled and level_dbfs < limit

    def is_background(self, level_dbfs: float, settings: BackgroundSettings, *, addressed: bool) -> bool:
        """Return True if an utterance is background speech.

        Args:
            level_dbfs: Level of the utterance.
            settings: The limits.
            addressed: True if its words address the agent.
        """
        if not self.doubtful(level_dbfs, settings):
            return False
        reference = self.reference_dbfs
        least = settings.least_dbfs if reference is None else reference - settings.gap_db
        return not addressed or level_dbfs < least

    def heard(self, level_dbfs: float) -> CallerLevel:
        """Return the state after a turn of the caller with this level."""
        before = self.reference_dbfs
        if before is None:
            return replace(self, caller_dbfs=level_dbfs, sunk_db=0.0)
        share = RISE if level_dbfs > before else FALL
        return replace(self, caller_dbfs=before + share * (level_dbfs - before), sunk_db=0.0)

    def dismissed(self, level_dbfs: float, sample: int) -> CallerLevel:
        """Return the state after background speech with this level, which ended at `sample`."""
        return replace(self, background_dbfs=level_dbfs, background_until=sample + round(BACKGROUND_S * STT_RATE))

    def refused(self) -> CallerLevel:
        """Return the state after a window of speech that was too quiet to start an utterance."""
        return replace(self, sunk_db=min(SINK_DB, self.sunk_db + SINK_DB_PER_WINDOW))


def level_dbfs(pcm: npt.NDArray[np.int16]) -> float:
    """Return the level of an utterance, as described above; minus infinity if it is shorter than a window."""
    count = pcm.size // VAD_WINDOW
    if not count:
        return -math.inf
    windows = pcm[: count * VAD_WINDOW].reshape(count, VAD_WINDOW).astype(np.float32)
    return power_dbfs(float(np.percentile((windows**2).mean(axis=1), 90)))


def power_dbfs(power: float) -> float:
    """Return the level of a mean square of 16-bit samples in dBFS."""
    return 10 * math.log10(max(power, 1e-3) / _FULL_SCALE_POWER)
