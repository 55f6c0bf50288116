"""Level gate: tells the caller's speech from that of a television or of other people in the room.

The caller is close to the microphone, so other people are quieter. The gate compares each utterance with the level of
the caller's earlier turns. Much quieter speech is ignored. Somewhat quieter speech is ignored unless its words address
the agent (`barge_in.is_addressed`). Before the first turn, the gate compares with fixed levels in dBFS
(`unknown_caller_dbfs`, `least_dbfs`).

A caller may move away from the microphone. While speech is refused as too quiet, the caller's assumed level therefore
falls by 0.5 dB per second of refused speech, by at most SINK_DB in total. The next turn of the caller ends this fall.

The level of an utterance is the 90th percentile of the power of its 32 ms windows, in dBFS.
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
    """Levels of the caller's speech and of background speech in one call.

    Attributes:
        caller_dbfs: Level of the caller's speech. None until the first turn.
        sunk_db: Decibels that are now subtracted from `caller_dbfs`, because speech was refused as too quiet.
        background_dbfs: Level of the last background speech that was dismissed. None if there was none.
        background_until: Sample of the caller's audio (16 kHz) until which `background_dbfs` raises the onset level.
    """

    caller_dbfs: float | None = None
    sunk_db: float = 0.0
    background_dbfs: float | None = None
    background_until: int = 0

    @property
    def reference_dbfs(self) -> float | None:
        """The caller's level in dBFS, less `sunk_db`, that new speech is compared with. None until the first turn."""
        return None if self.caller_dbfs is None else self.caller_dbfs - self.sunk_db

    def onset_dbfs(self, sample: int, settings: BackgroundSettings) -> float:
        """Return the level in dBFS that a window at `sample` needs to start an utterance.

        The level is minus infinity, so that every window passes, if the gate is off or the caller's level is unknown.
        """
        reference = self.reference_dbfs
        if not settings.enabled or reference is None:
            return -math.inf
        lowest = reference - settings.onset_gap_db
        if self.background_dbfs is None or sample >= self.background_until:
            return lowest
        return max(lowest, min(self.background_dbfs + BACKGROUND_MARGIN_DB, reference - _NEAR_CALLER_DB))

    def doubtful(self, level_dbfs: float, settings: BackgroundSettings) -> bool:
        """Return True if speech of this level may be background, so its words must be checked.

        Before the first turn, speech is doubtful below `unknown_caller_dbfs`. It is also doubtful if it is less than
        `doubtful_gap_db` louder than background speech that was dismissed.
        """
        reference = self.reference_dbfs
        if reference is not None:
            limit = reference - settings.doubtful_gap_db
        else:
            background = -math.inf if self.background_dbfs is None else self.background_dbfs
            limit = max(settings.unknown_caller_dbfs, background + settings.doubtful_gap_db)
        return settings.enabled and level_dbfs < limit

    def is_background(self, level_dbfs: float, settings: BackgroundSettings, *, addressed: bool) -> bool:
        """Return True if an utterance is background speech, which the agent ignores.

        A doubtful utterance is background if its words do not address the agent, or if it is much too quiet.

        Args:
            level_dbfs: Level of the utterance in dBFS.
            settings: `gap_db` and, before the first turn, `least_dbfs` are the limits for "much too quiet".
            addressed: True if the words of the utterance address the agent.
        """
        if not self.doubtful(level_dbfs, settings):
            return False
        reference = self.reference_dbfs
        least = settings.least_dbfs if reference is None else reference - settings.gap_db
        return not addressed or level_dbfs < least

    def heard(self, level_dbfs: float) -> CallerLevel:
        """Return the levels after a turn of the caller with the level `level_dbfs`.

        The caller's level moves towards that of the turn by the share RISE or FALL, and `sunk_db` becomes 0.
        """
        before = self.reference_dbfs
        if before is None:
            return replace(self, caller_dbfs=level_dbfs, sunk_db=0.0)
        share = RISE if level_dbfs > before else FALL
        return replace(self, caller_dbfs=before + share * (level_dbfs - before), sunk_db=0.0)

    def dismissed(self, level_dbfs: float, sample: int) -> CallerLevel:
        """Return the levels after background speech of `level_dbfs` that ended at `sample` was dismissed."""
        return replace(self, background_dbfs=level_dbfs, background_until=sample + round(BACKGROUND_S * STT_RATE))

    def refused(self) -> CallerLevel:
        """Return the levels after a window of speech that was too quiet to start an utterance: `sunk_db` grows."""
        return replace(self, sunk_db=min(SINK_DB, self.sunk_db + SINK_DB_PER_WINDOW))


def level_dbfs(pcm: npt.NDArray[np.int16]) -> float:
    """Return the level in dBFS of an utterance at 16 kHz: the 90th percentile of the power of its 32 ms windows.

    The level is minus infinity if the utterance is shorter than one window.
    """
    count = pcm.size // VAD_WINDOW
    if not count:
        return -math.inf
    windows = pcm[: count * VAD_WINDOW].reshape(count, VAD_WINDOW).astype(np.float32)
    return power_dbfs(float(np.percentile((windows**2).mean(axis=1), 90)))


def power_dbfs(power: float) -> float:
    """Convert a power, the mean square of 16-bit samples, to dBFS (0 dBFS: 32,768 squared)."""
    return 10 * math.log10(max(power, 1e-3) / _FULL_SCALE_POWER)
