"""Prometheus metrics: one registry and one port for each replica.

A request to `/metrics` through the load balancer would reach a random host, so every replica has a separate port. The
histograms of latencies have bucket bounds at the limits of the latency guide, so that the share of turns within a limit
is exact. Every label has a fixed set of values. They are values of the enums `Stage`, `AdmissionRefusal`,
`DraftDeclined`, `CacheRefusal`, `SpeechKind`, `HangUp` and `DegradationMeasure` of `rejoinder.core`, and the help texts
explain them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rejoinder.core.capacity.budgets import HISTOGRAM_BUCKETS_S
from rejoinder.core.errors import BackendError
from rejoinder.core.measuring.waterfall import UNATTRIBUTED, Stage
from rejoinder.core.resilience.stage_admission import StageAdmission

logger = logging.getLogger(__name__)

# Bucket bounds, in seconds, for the time in which a barge-in stops the reply. The latency guide's limit is 150 ms;
# callers notice differences of tens of milliseconds.
STOP_BUCKETS_S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
# Bucket bounds of service times, from 1 ms to 30 s. Each is 1.125 times the one before, which is fine enough to draw
# random service times from the histogram.
SERVICE_BUCKETS_S = tuple(round(0.001 * 1.125**step, 6) for step in range(89))
# Bucket bounds of the number of turns in a conversation.
TURN_BUCKETS = (0, 1, 2, 3, 5, 8, 13, 21, 34)
# Seconds for which the number of wanted replicas is reused. Every host asks Serve's controller.
WANTED_S = 10.0
SESSION_BUCKETS_S = (1, 10, 30, 60, 120, 300, 600, 1800, 3600)

REPLICA_HELP = {
    "rejoinder_requests_in_flight": "Requests inside the replica of this stage now, waiting ones included.",
    "rejoinder_request_seconds": "Seconds from a request's arrival at the replica of this stage to its end.",
    "rejoinder_queue_seconds": "Seconds that a request waited in the replica of this stage before its service began.",
    "rejoinder_service_seconds": "Seconds from the start of a request's service to its end, answered requests only.",
    "rejoinder_requests_total": "Requests that ended in the replica of this stage, by end: done, cancelled or failed.",
}
HOST_HELP = {
    "rejoinder_turn_seconds": "Seconds from the caller's last speech to the first audio of the answer, at the host.",
    "rejoinder_stage_seconds": (
        "Seconds that this stage added to a turn; the stages, unattributed included, sum to rejoinder_turn_seconds."
    ),
    "rejoinder_stage_own_seconds": (
        "Seconds that this stage took, including time overlapped with other stages; use this series for alerts."
    ),
    "rejoinder_sessions_live": "Conversations of this host now.",
    "rejoinder_session_seconds": "Length in seconds of the conversations that ended.",
    "rejoinder_sessions_refused_total": (
        "Handshakes that were refused for lack of capacity. HAProxy sends a refused one to another host, so a caller "
        "may count several times. By reason: full (no place left on the host), late (the event loop is late), "
        "utilisation, latency, queue or speed (a stage has no capacity), growth or cold_start (not measured yet), "
        "share (other hosts may have taken the free places), or unreachable (the host cannot reach a stage)."
    ),
    "rejoinder_hedge_delay_seconds": "Seconds that the newest language model request waits before it is hedged.",
    "rejoinder_hedges_total": (
        "Hedges of language model requests, by outcome: sent, then won or wasted; or not sent because the budget was "
        "exhausted (budget_exhausted) or every other replica was busy (vetoed)."
    ),
    "rejoinder_drafts_total": (
        "Speculative replies, by outcome: begun, renewed after a changed transcript, kept, discarded, discarded_ready "
        "(discarded with audio ready, also counted as discarded), or declined_ and the reason."
    ),
    "rejoinder_interim_transcripts_total": "Transcripts of unfinished utterances, by outcome: heard or failed.",
    "rejoinder_breaker_transitions_total": (
        "Language model replicas taken out of use (outcome opened) and put back into use (outcome closed)."
    ),
    "rejoinder_answer_cache_total": (
        "Answer cache operations, by outcome: a lookup's hit_ and its kind, miss, late, failed or paused; refused_ and "
        "the reason if a question is not looked up; stored or dropped for answers to keep."
    ),
    "rejoinder_interruption_stop_seconds": (
        "Seconds from the arrival of the caller's interrupting speech to the end of the reply's audio."
    ),
    "rejoinder_filler_seconds": "Seconds from the caller's last speech to the start of a filler.",
    "rejoinder_dismissed_speech_total": (
        "Utterances during or just after a reply that became no turn, by reason: no_words, backchannel, "
        "echo or background."
    ),
    "rejoinder_network_rtt_seconds": (
        "Seconds of a round trip between the host and the caller's device, by transport: websocket (a ping every 5 s, "
        "which passes through HAProxy) or webrtc (RTCP reports). Telephone calls are not measured."
    ),
    "rejoinder_repeated_turns_total": (
        "Turns with the same content words as the caller's turn before, so that the caller was probably not understood "
        "or not answered."
    ),
    "rejoinder_hangups_total": (
        "Conversations that the client ended (a WebSocket with code 1000, 1001 or none), by when: "
        "before_reply, during_reply, within_5s (after the end of a reply) or later."
    ),
    "rejoinder_hangup_turns": "Turns of the caller in the conversations that the client ended.",
    "rejoinder_degradation_steps_total": (
        "Degradation measures that a session took because a stage was slow, by measure: short_segment, no_speculation, "
        "small_model or filler."
    ),
    "rejoinder_session_journal_total": (
        "Events of the session journal, by outcome: stored, failed or dropped because a journal is full (snapshots), "
        "resumed, not_found or unreadable (sessions that a client wanted to resume), superseded (resumed elsewhere), "
        "asked_to_move (by a drained host)."
    ),
    "rejoinder_errors_total": (
        "Errors, by fault (caller, backend, overload or internal) and by the stage where they occurred."
    ),
}

ADMISSION_HELP = {
    "rejoinder_admission_calls": "Conversations of all hosts now, as far as this host knows.",
    "rejoinder_admission_places": "Conversations of all hosts that the stages can serve, and what limits them.",
    "rejoinder_admission_yields": "1 while speculative replies and interim transcripts make room, else 0.",
    "rejoinder_stage_utilisation": "Share of the stage's slots in use by requests that turns wait for.",
    "rejoinder_stage_wait_seconds": "90th percentile of the recent waits for a slot of the stage, in seconds.",
    "rejoinder_replicas_wanted": "Replicas of the stage that Ray Serve wants: those that run and those that start.",
    "rejoinder_stage_tokens_per_second": "Median rate at which the stage writes one answer, in tokens per second.",
}


class MetricsPort:
    """HTTP server of one registry, on its own thread.

    Attributes:
        registry: The metrics that the port serves. From the start they include those of the process (CPU, memory).
        target: Address and port that Prometheus scrapes, as "address:port".
    """

    def __init__(self, address: str, port: int = 0) -> None:
        """Listen on `address` and `port`. Port 0 takes a free one."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._server, _ = start_http_server(port, address, registry=self.registry)
        self.target = f"{address}:{self._server.server_port}"


class ReplicaMetrics:
    """Metrics of one stage replica.

    Attributes:
        in_flight: Gauge of the requests inside the replica.
    """

    def __init__(self, registry: CollectorRegistry, stage: str) -> None:
        self._stage = stage

        def histogram(name: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, REPLICA_HELP[name], ["stage"], buckets=buckets, registry=registry).labels(stage)

        name = "rejoinder_requests_in_flight"
        self.in_flight = Gauge(name, REPLICA_HELP[name], ["stage"], registry=registry).labels(stage)
        self._seconds = histogram("rejoinder_request_seconds", HISTOGRAM_BUCKETS_S)
        self._queue = histogram("rejoinder_queue_seconds", SERVICE_BUCKETS_S)
        self._service = histogram("rejoinder_service_seconds", SERVICE_BUCKETS_S)
        name = "rejoinder_requests_total"
        self._ends = Counter(name, REPLICA_HELP[name], ["stage", "end"], registry=registry)

    def ended(self, seconds: float, end: Literal["done", "cancelled", "failed"], queue_s: float | None) -> None:
        """Count a request that ended.

        Args:
            seconds: Time in seconds from its arrival to its end.
            end: How the request ended.
            queue_s: Time in seconds that the request waited for its service, None if the service never began or the
                engine does not report this time.
        """
        self._seconds.observe(seconds)
        self._ends.labels(self._stage, end).inc()
        if queue_s is not None:
            self._queue.observe(queue_s)
            if end == "done":
                self._service.observe(max(0.0, seconds - queue_s))


class ConversationMetrics:
    """The metrics of a session host: `actors.stages.ports.Metrics` for Prometheus.

    HOST_HELP says what each metric counts.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, *labels: str) -> Counter:
            return Counter(name, HOST_HELP[name], labels, registry=registry)

        def gauge(name: str) -> Gauge:
            return Gauge(name, HOST_HELP[name], registry=registry)

        def histogram(name: str, *labels: str, buckets: Sequence[float] = HISTOGRAM_BUCKETS_S) -> Histogram:
            return Histogram(name, HOST_HELP[name], labels, buckets=buckets, registry=registry)

        self._turn = histogram("rejoinder_turn_seconds")
        shares = histogram("rejoinder_stage_seconds", "stage")
        self._stages = {name: shares.labels(name) for name in [*(stage.value for stage in Stage), UNATTRIBUTED]}
        own = histogram("rejoinder_stage_own_seconds", "stage")
        self._own = {stage.value: own.labels(stage.value) for stage in Stage}
        self._live = gauge("rejoinder_sessions_live")
        self._sessions = histogram("rejoinder_session_seconds", buckets=SESSION_BUCKETS_S)
        self._refused = counter("rejoinder_sessions_refused_total", "reason")
        self._hedge_delay = gauge("rejoinder_hedge_delay_seconds")
        self._hedges = counter("rejoinder_hedges_total", "outcome")
        self._drafts = counter("rejoinder_drafts_total", "outcome")
        self._partials = counter("rejoinder_interim_transcripts_total", "outcome")
        self._breakers = counter("rejoinder_breaker_transitions_total", "outcome")
        self._cache = counter("rejoinder_answer_cache_total", "outcome")
        self._stops = histogram("rejoinder_interruption_stop_seconds", buckets=STOP_BUCKETS_S)
        self._fillers = histogram("rejoinder_filler_seconds")
        self._dismissed = counter("rejoinder_dismissed_speech_total", "reason")
        self._round_trips = histogram("rejoinder_network_rtt_seconds", "transport")
        self._repeated = counter("rejoinder_repeated_turns_total")
        self._hangups = counter("rejoinder_hangups_total", "when")
        self._hangup_turns = histogram("rejoinder_hangup_turns", buckets=TURN_BUCKETS)
        self._degradation = counter("rejoinder_degradation_steps_total", "measure")
        self._survival = counter("rejoinder_session_journal_total", "outcome")
        self._errors = counter("rejoinder_errors_total", "fault", "stage")

    def turn(
        self,
        voice_to_voice_s: float,
        stages_s: dict[str, float],
        *,
        raw_s: dict[str, float],
        engines: dict[str, str],
    ) -> None:
        """Observe an answered turn and its stages. All times are in seconds.

        Args:
            voice_to_voice_s: From the caller's last speech to the first audio of the answer.
            stages_s: Time that each stage added to the turn, by stage. The rest of the turn counts as unattributed.
            raw_s: Duration of each stage, by stage, including time overlapped with other stages.
            engines: Name of each stage's engine, by stage. These metrics do not contain it.
        """
        self._turn.observe(voice_to_voice_s)
        for name, seconds in raw_s.items():
            self._own[name].observe(seconds)
        for name, seconds in stages_s.items():
            self._stages[name].observe(seconds)
        self._stages[UNATTRIBUTED].observe(max(0.0, voice_to_voice_s - sum(stages_s.values())))

    def session_opened(self) -> None:
        """Count a conversation that began."""
        self._live.inc()

    def session_closed(self, duration_s: float) -> None:
        """Count a conversation that ended after `duration_s` seconds."""
        self._live.dec()
        self._sessions.observe(duration_s)

    def refused(self, reason: str) -> None:
        """Count a refused call. `reason` is a value of `AdmissionRefusal`."""
        self._refused.labels(reason).inc()

    def hedge(self, outcome: Literal["sent", "won", "wasted", "budget_exhausted", "vetoed"]) -> None:
        """Count a hedge by its outcome.

        A hedge is counted as "sent", and again as "won" (its answer is used) or "wasted" (the answer of another
        attempt is used). A hedge that is not sent counts as "budget_exhausted", or as
        "vetoed" if every other replica is busy.
        """
        self._hedges.labels(outcome).inc()

    def hedge_delay(self, delay_s: float) -> None:
        """Set the gauge of the time in seconds after which the newest request is hedged."""
        self._hedge_delay.set(delay_s)

    def interim_transcript(self, outcome: Literal["heard", "failed"]) -> None:
        """Count an interim transcript that was received ("heard") or has failed."""
        self._partials.labels(outcome).inc()

    def draft(self, outcome: str) -> None:
        """Count an event of a speculative reply.

        `outcome` is "begun", "renewed" (after a changed transcript), "kept", "discarded", "discarded_ready"
        (discarded with audio ready), or "declined_" and a value of `DraftDeclined` if none was begun.
        """
        self._drafts.labels(outcome).inc()

    def breaker(self, outcome: Literal["opened", "closed"]) -> None:
        """Count a language model replica that was taken out of use ("opened") or put back into use ("closed")."""
        self._breakers.labels(outcome).inc()

    def cache(self, outcome: str) -> None:
        """Count an answer cache operation.

        For a lookup, `outcome` is "hit_" and the kind of hit, "miss", "late", "failed" or "paused". For a question that
        is not looked up, it is "refused_" and a value of `CacheRefusal`. For an answer, it is "stored" or "dropped".
        """
        self._cache.labels(outcome).inc()

    def filler(self, after_s: float) -> None:
        """Observe a filler that began `after_s` seconds after the caller's last speech."""
        self._fillers.observe(after_s)

    def degradation(self, measure: str) -> None:
        """Count a degradation measure. `measure` is a value of `DegradationMeasure`."""
        self._degradation.labels(measure).inc()

    def interrupted(self, stop_s: float) -> None:
        """Observe a barge-in that stopped the reply's audio after `stop_s` seconds."""
        self._stops.observe(stop_s)

    def dismissed_speech(self, reading: str) -> None:
        """Count an utterance that became no turn. `reading`, the label `reason`, is a value of `SpeechKind`."""
        self._dismissed.labels(reading).inc()

    def round_trip(self, seconds: float, transport: Literal["websocket", "webrtc"]) -> None:
        """Observe a round trip between this host and a caller's device, in seconds."""
        self._round_trips.labels(transport).observe(seconds)

    def repeated_turn(self) -> None:
        """Count a turn of the caller that repeats the turn before it."""
        self._repeated.inc()

    def hung_up(self, when: str, turns: int) -> None:
        """Count a conversation that the client ended after `turns` turns. `when` is a value of `HangUp`."""
        self._hangups.labels(when).inc()
        self._hangup_turns.observe(turns)

    def survival(self, outcome: str, count: int = 1) -> None:
        """Count `count` events of the session journal. HOST_HELP lists the outcomes."""
        self._survival.labels(outcome).inc(count)

    def error(self, fault: Literal["caller", "backend", "overload", "internal"], stage: str) -> None:
        """Count an error by the party at fault and by the stage where it occurred."""
        self._errors.labels(fault, stage).inc()


class WantedReplicas(Collector):
    """Metric of the replicas that Ray Serve wants of each stage.

    Asking Serve takes long while the cluster's head is away. So a thread asks, and the newest answer is exported.
    """

    def __init__(self, ask: Callable[[], Mapping[str, int]], clock: Callable[[], float] = time.monotonic) -> None:
        """Create the collector.

        Args:
            ask: Returns the number of replicas by stage. It may block, and raise BackendError.
            clock: Returns the time in seconds.
        """
        self._ask, self._clock = ask, clock
        self._newest: Mapping[str, int] = {}
        self._asked_at = -math.inf
        self._asking: threading.Thread | None = None

    def describe(self) -> Iterable[Metric]:
        """Yield the metric, for the registry that checks the names. Serve is not asked."""
        yield _gauge("rejoinder_replicas_wanted", {}, "stage")

    def collect(self) -> Iterable[Metric]:
        """Yield the metric with the newest answer. Ask again if that is older than WANTED_S."""
        wanted = {(stage,): number for stage, number in self._newest.items()}
        idle = self._asking is None or not self._asking.is_alive()
        if idle and self._clock() - self._asked_at >= WANTED_S:
            self._asked_at = self._clock()
            self._asking = threading.Thread(target=self._renew, daemon=True)
            self._asking.start()
        yield _gauge("rejoinder_replicas_wanted", wanted, "stage")

    def settle(self) -> None:
        """Wait until the thread that asks has ended, if one does."""
        if self._asking:
            self._asking.join()

    def _renew(self) -> None:
        try:
            self._newest = self._ask()
        except BackendError as fault:
            logger.warning("Ray Serve does not say how many replicas it wants: %s", fault)


class AdmissionCollector(Collector):
    """Metrics of a host's admission by the load of the stages. ADMISSION_HELP says what each metric is."""

    def __init__(self, admission: StageAdmission) -> None:
        self._admission = admission

    def describe(self) -> Iterable[Metric]:
        """Yield the metrics, for the registry that checks their names."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now."""
        admission = self._admission
        places = admission.places
        yield _gauge("rejoinder_admission_calls", {(): admission.calls})
        yield _gauge("rejoinder_admission_places", {(places.limit.value,): places.number}, "limit")
        yield _gauge("rejoinder_admission_yields", {(): float(admission.yields)})
        states = admission.states.items()
        yield _gauge("rejoinder_stage_utilisation", {(name,): state.utilisation for name, state in states}, "stage")
        yield _gauge("rejoinder_stage_wait_seconds", {(name,): state.queue_s for name, state in states}, "stage")
        speeds = {(name,): state.tokens_per_s for name, state in states if state.tokens_per_s}
        yield _gauge("rejoinder_stage_tokens_per_second", speeds, "stage")


def _gauge(name: str, values: Mapping[Any, float], *labels: str) -> GaugeMetricFamily:
    """Return a gauge with a value for each tuple of label values."""
    family = GaugeMetricFamily(name, ADMISSION_HELP[name], labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family
