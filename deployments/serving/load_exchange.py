"""Exchange of load between hosts and stage replicas, on the calls that hosts make anyway.

A host writes its id and its number of live calls into the `ReplicaRoute` of each call. A replica that finds them there
wraps its answer, or the first item of its stream, in `WithLoad`. `handles.py` unwraps it and passes the report to the
host's `LoadExchange`. So no request is made for the load, and it is as fresh as the last answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deployments.serving.placements import ReplicaRoute
from rejoinder.core.capacity.budgets import Component, Tier, component_limit_ms, total_limit_ms
from rejoinder.core.resilience.stage_admission import StageAdmission, TierLimits, cold_places
from rejoinder.core.resilience.stage_load import StageReport
from rejoinder.core.settings.settings import Settings

WAIT_SHARE = 0.5
"""Share of a turn's limit that a tenth of the requests may wait in one stage. With longer waits these turns would be
late, whatever the median is.
"""


@dataclass(frozen=True, slots=True)
class WithLoad:
    """An answer of a replica with the replica's load.

    Attributes:
        answer: The answer, or the first item of a stream.
        report: The load.
    """

    answer: object
    report: StageReport


class LoadExchange:
    """What a host tells the replicas about itself, and where it gets their reports."""

    def __init__(self, host: str, live: Callable[[], int], note: Callable[[str, StageReport], None]) -> None:
        """Create the exchange of one host.

        Args:
            host: The host's id.
            live: Returns the number of live calls.
            note: Called with the name of a stage and the report of one of its replicas.
        """
        self._host = host
        self._live = live
        self._note = note

    def route(
        self,
        request_id: str,
        avoid: frozenset[str] = frozenset(),
        *,
        strict: bool = False,
        sticky: str = "",
        only: str = "",
    ) -> ReplicaRoute:
        """Return the route of a call, with this host's id and number of calls. The arguments are as in the route."""
        return ReplicaRoute(
            request_id, avoid, strict=strict, sticky=sticky, only=only, host=self._host, live=self._live()
        )

    def unwrap(self, stage: str, answer: object) -> object:
        """Return the answer without the load, which is passed to the host."""
        if not isinstance(answer, WithLoad):
            return answer
        self._note(stage, answer.report)
        return answer.answer


def tier_limits(tier: Tier) -> TierLimits:
    """Return the limits of a latency tier for the admission of calls (sections 3.1 and 3.2 of the latency guide)."""
    turn_s = (total_limit_ms(tier) - component_limit_ms(Component.VAD, tier)) / 1000
    return TierLimits(turn_s, WAIT_SHARE * turn_s)


def open_admission(settings: Settings, slots: Mapping[str, int], *, phase: float) -> StageAdmission:
    """Return the admission of a host.

    Args:
        settings: The settings of the application.
        slots: Slots of one replica of each stage; 0 where the number is not known.
        phase: Number in [0, 1) that differs between hosts.
    """
    stages = {"stt": settings.stt, "llm": settings.llm, "tts": settings.tts}
    all_slots = {name: slots.get(name, 0) * stage.autoscaling.min_replicas for name, stage in stages.items()}
    return StageAdmission(
        settings.admission,
        tier_limits(Tier(settings.degradation.tier)),
        cold_places(settings.admission.cold_start_calls, all_slots),
        settings.host.retry_after_s,
        phase=phase,
        hosts=settings.host.autoscaling.min_replicas,
    )


NO_EXCHANGE = LoadExchange("", lambda: 0, lambda _stage, _report: None)
"""Exchange of a caller that is not a session host: replicas send it no load."""
