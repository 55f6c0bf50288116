"""Settings of degradation: what the replies of a session omit while a stage is slow."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rejoinder.core.settings.section import Count, Positive, Section


class DegradationSettings(Section):
    """Conditions under which a session makes its replies cheaper after late turns, and normal again after good turns.

    `rejoinder/core/reply/degradation.py` defines the measures for each slow stage.
    """

    enabled: bool = True
    """Take measures after late turns. Off: every turn is served in full."""
    tier: Literal["excellent", "good", "acceptable"] = "good"
    """Tier of the latency guide whose limits apply. A turn is late if its processing time (without the wait for the end
    of the turn) reaches the tier's total (section 3.1) minus its limit for VAD (section 3.2): 400, 600 or 900 ms. A
    slow stage is one that reaches its limit of section 3.2.
    """
    late_turns: int = Field(2, ge=1, le=100)
    """Number of late turns in a row after which one more measure is taken."""
    good_turns: Count = 4
    """Number of turns in a row within the limits after which one measure is taken back."""
    reset_after_s: Positive = 300.0
    """Seconds without a turn after which the session starts again without measures."""
