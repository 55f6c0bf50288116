"""Numbers for Prometheus: one registry and one port a replica, because a `/metrics` behind a load balancer answers
for a random host. Histograms are bucketed at the latency guide's limits, so that every budget can be read off exactly.
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from rejoinder.core.capacity.budgets import HISTOGRAM_BUCKETS_S
from rejoinder.core.measuring.waterfall import UNATTRIBUTED, Stage

# Barge-in is felt in tens of milliseconds; the bar is 150 (DESIGN section 5).
STOP_BUCKETS_S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
# Fine enough to draw service times from: neighbours differ by an eighth, from 1 ms to 30 s.
SERVICE_BUCKETS_S = tuple(round(0.001 * 1.125**step, 6) for step in range(89))
SESSION_BUCKETS_S = (1, 10, 30, 60, 120, 300, 600, 1800, 3600)


class MetricsPort:
    """Serves a registry over HTTP from a thread of its own; port 0 picks a free one."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._server, _ = start_http_server(port, address, registry=self.registry)
        self.target = f"{address}:{self._server.server_port}"


class ReplicaMetrics:
    """What every stage replica counts."""

    def __init__(self, registry: CollectorRegistry, stage: str) -> None:
        self._stage = stage
        self.in_flight = Gauge(
            "rejoinder_requests_in_flight", "Requests inside the replica now.", ["stage"], registry=registry
        ).labels(stage)
        self._seconds = Histogram(
            "rejoinder_request_seconds",
            "From arrival at the replica to its answer, or its last item.",
            ["stage"],
            buckets=HISTOGRAM_BUCKETS_S,
            registry=registry,
        ).labels(stage)
        self._queue, self._service = (
            Histogram(name, what, ["stage"], buckets=SERVICE_BUCKETS_S, registry=registry).labels(stage)
            for name, what in (
                ("rejoinder_queue_seconds", "From arrival at the replica to the start of the service."),
                ("rejoinder_service_seconds", "From the start of the service to its end; answered requests only."),
            )
        )
        self._ends = Counter(
            "rejoinder_requests_total", "Requests by how they ended.", ["stage", "end"], registry=registry
        )

    def ended(self, seconds: float, end: Literal["done", "cancelled", "failed"], queue_s: float | None) -> None:
        """`queue_s`: how long it waited for its service to begin; None if that is not known or never came."""
        self._seconds.observe(seconds)
        self._ends.labels(self._stage, end).inc()
        if queue_s is not None:
            self._queue.observe(queue_s)
            if end == "done":
                self._service.observe(max(0.0, seconds - queue_s))


class ConversationMetrics:
    """`actors.stages.ports.Metrics` for Prometheus. Every label value comes from a closed set."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._turn = Histogram(
            "rejoinder_turn_seconds",
            "Caller's last speech to first audio, at the host.",
            buckets=HISTOGRAM_BUCKETS_S,
            registry=registry,
        )
        shares = _by_stage("rejoinder_stage_seconds", "A stage's share of a turn (shares sum to the turn).", registry)
        self._stages = {name: shares.labels(name) for name in [*(stage.value for stage in Stage), UNATTRIBUTED]}
        what = "A stage's own duration, what it did beside others included: the latency that an alert is about."
        own = _by_stage("rejoinder_stage_own_seconds", what, registry)
        self._own = {stage.value: own.labels(stage.value) for stage in Stage}
        self._live, self._hedge_delay = (
            Gauge("rejoinder_sessions_live", "Conversations now.", registry=registry),
            Gauge("rejoinder_hedge_delay_seconds", "What the newest request waits before a hedge.", registry=registry),
        )
        ended = "Length of ended conversations."
        self._sessions = Histogram("rejoinder_session_seconds", ended, buckets=SESSION_BUCKETS_S, registry=registry)
        self._refused = Counter("rejoinder_sessions_refused_total", "Refused calls.", ["reason"], registry=registry)
        self._hedges, self._drafts, self._partials, self._breakers, self._cache = (
            Counter(name, what, ["outcome"], registry=registry)
            for name, what in (
                ("rejoinder_hedges_total", "Hedged LLM requests."),
                ("rejoinder_drafts_total", "Replies begun before their turn was taken."),
                ("rejoinder_interim_transcripts_total", "Transcripts of utterances still going on."),
                ("rejoinder_breaker_transitions_total", "Language model replicas taken out and brought back."),
                ("rejoinder_answer_cache_total", "Questions to the answer cache, drafts' too, and what it kept."),
            )
        )
        self._stops, self._fillers = (
            Histogram(name, what, buckets=buckets, registry=registry)
            for name, what, buckets in (
                ("rejoinder_interruption_stop_seconds", "Caller's interrupting speech to silence.", STOP_BUCKETS_S),
                ("rejoinder_filler_seconds", "Caller's last speech to a filler.", HISTOGRAM_BUCKETS_S),
            )
        )
        overheard, what = "rejoinder_dismissed_speech_total", "Speech over a reply that was no turn."
        self._overheard = Counter(overheard, what, ["reading"], registry=registry)
        self._degradation = Counter(
            "rejoinder_degradation_steps_total", "Degradation steps taken.", ["measure"], registry=registry
        )
        self._errors = Counter("rejoinder_errors_total", "Errors by fault.", ["fault", "stage"], registry=registry)

    def turn(
        self,
        voice_to_voice_s: float,
        stages_s: dict[str, float],
        *,
        raw_s: dict[str, float],
        engines: dict[str, str],
    ) -> None:
        self._turn.observe(voice_to_voice_s)
        for name, seconds in raw_s.items():
            self._own[name].observe(seconds)
        for name, seconds in stages_s.items():
            self._stages[name].observe(seconds)
        self._stages[UNATTRIBUTED].observe(max(0.0, voice_to_voice_s - sum(stages_s.values())))

    def session_opened(self) -> None:
        self._live.inc()

    def session_closed(self, duration_s: float) -> None:
        self._live.dec()
        self._sessions.observe(duration_s)

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def hedge(self, outcome: Literal["sent", "won", "wasted", "budget_exhausted", "vetoed"]) -> None:
        self._hedges.labels(outcome).inc()

    def hedge_delay(self, delay_s: float) -> None:
        self._hedge_delay.set(delay_s)

    def partial(self, outcome: Literal["heard", "failed"]) -> None:
        self._partials.labels(outcome).inc()

    def draft(self, outcome: str) -> None:
        self._drafts.labels(outcome).inc()

    def breaker(self, outcome: Literal["opened", "closed"]) -> None:
        self._breakers.labels(outcome).inc()

    def cache(self, outcome: str) -> None:
        self._cache.labels(outcome).inc()

    def filler(self, after_s: float) -> None:
        self._fillers.observe(after_s)

    def degradation(self, measure: str) -> None:
        self._degradation.labels(measure).inc()

    def interrupted(self, stop_s: float) -> None:
        self._stops.observe(stop_s)

    def overheard(self, reading: str) -> None:
        self._overheard.labels(reading).inc()

    def error(self, fault: Literal["caller", "backend", "overload", "internal"], stage: str) -> None:
        self._errors.labels(fault, stage).inc()


def _by_stage(name: str, what: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, what, ["stage"], buckets=HISTOGRAM_BUCKETS_S, registry=registry)
