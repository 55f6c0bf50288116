"""Settings of overload: which calls a host admits, and what the replies of a session omit while a stage is slow."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rejoinder.core.settings.section import Count, Positive, Section


class AdmissionSettings(Section):
    """Conditions under which a host admits a further call, besides its own limits (`host.max_sessions` and its lag).

    The limit of a turn's latency is that of `degradation.tier`. rejoinder/core/resilience/stage_admission.py decides.
    """

    enabled: bool = True
    """Refuse calls that the stages have no capacity for. Off: only the host's own limits apply."""
    utilisation_limit: float = Field(0.8, gt=0, le=1)
    """Maximum share of a stage's slots in use, averaged over its replicas, that a further call may lead to.
    Above about 0.8, the waits of requests grow fast.
    """
    yield_utilisation: float = Field(0.6, gt=0, le=1)
    """Share of a stage's slots in use from which no speculative replies and no interim transcripts are begun. Below
    `utilisation_limit`, so that they make room before a call is refused.
    """
    cold_start_calls: Count = 2
    """Maximum number of calls on all hosts while the load of a call is not known, per slot of the stage with the fewest
    slots (those of its `min_replicas`). The first turns of these calls, some 15 s, measure the load.
    """
    growth: float = Field(1.25, ge=1, le=10)
    """Maximum number of calls, as a multiple of a number whose turns were in time, but at least one call more. It keeps
    a sudden crowd from being admitted by a prediction that no measurement has confirmed.
    """

    @model_validator(mode="after")
    def _yields_first(self) -> AdmissionSettings:
        if self.yield_utilisation >= self.utilisation_limit:
            raise ValueError("yield_utilisation must be below utilisation_limit: speculative work makes room first")
        return self


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
