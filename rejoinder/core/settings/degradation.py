"""The configuration's part about what a session does without while a stage is slow."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rejoinder.core.settings.section import Count, Positive, Section


class DegradationSettings(Section):
    """Steps that make a session's next replies lighter after replies that came too late
    (rejoinder/core/reply/degradation.py).
    """

    enabled: bool = True
    # The latency guide's limits that a turn and its stages are held against.
    tier: Literal["excellent", "good", "acceptable"] = "good"
    # Late turns in a row that take the next step, and turns in a row within the limits that take one back.
    late_turns: int = Field(2, ge=1, le=100)
    good_turns: Count = 4
    # A session that nobody spoke in for so long begins anew, without any step.
    reset_after_s: Positive = 300.0
