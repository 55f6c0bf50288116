"""Settings of the admission by the load of the stages."""

from __future__ import annotations

from pydantic import Field, model_validator

from rejoinder.core.settings.section import Count, Section


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
    cold_start_calls: Count = 4
    """Maximum number of calls of a host while it knows nothing about the load of a call, per slot of a replica of the
    stage with the fewest slots. The first turns of these calls, some 15 s, measure the load.
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
