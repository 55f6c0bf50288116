"""Settings of degradation: what a session does without while a stage is slow."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rejoinder.core.settings.section import Count, Positive, Section


class DegradationSettings(Section):
    """Measures that make a session's next replies cheaper after late replies.

    `rejoinder/core/reply/degradation.py` decides which measure follows from which slow stage.
    """

    enabled: bool = True
    """Take measures after late turns. Off: every turn is served in full."""
    tier: Literal["excellent", "good", "acceptable"] = "good"
    """Tier of the latency guide (section 3.2). A turn is late if it misses the limits of this tier."""
    late_turns: int = Field(2, ge=1, le=100)
    """Late turns in a row after which one more measure is taken."""
    good_turns: Count = 4
    """Turns in a row within the limits after which one measure is taken back."""
    reset_after_s: Positive = 300.0
    """Seconds without a turn after which the session starts again without measures."""
