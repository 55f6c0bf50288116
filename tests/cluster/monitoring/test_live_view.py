"""Tests of what `rejoinder top` shows: differences of two readings of real metrics pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from cluster.monitoring.live_view import StageLoadRow, SystemFrame, TurnTimes, frame
from cluster.monitoring.readings import ReplicaPage, SystemReading, parse_page
from deployments.serving.metrics import ConversationMetrics, ReplicaMetrics, WantedReplicas


class Replica:
    """One replica with the product's metrics, whose page can be read at any time."""

    def __init__(self, stage: str, cpu_s: float = 1.0) -> None:
        self.stage = stage
        self.registry = CollectorRegistry()
        self.cpu = Counter("process_cpu_seconds_total", "CPU time.", registry=self.registry)
        self.cpu.inc(cpu_s)
        self.host = ConversationMetrics(self.registry) if stage == "host" else None
        self.requests = None if stage == "host" else ReplicaMetrics(self.registry, stage)

    def turns(self, *seconds: float) -> None:
        """Answer a turn for each duration, all of it in speech to text."""
        assert self.host
        for each in seconds:
            self.host.turn(each, {"stt": each}, raw_s={"stt": each}, engines={})

    @property
    def page(self) -> ReplicaPage:
        return parse_page(generate_latest(self.registry).decode(), self.stage)


def _reading(at_s: float, replicas: Mapping[str, Replica], **more: Any) -> SystemReading:
    return SystemReading(at_s, {name: replica.page for name, replica in replicas.items()}, **more)


def _times(shown: SystemFrame, name: str) -> TurnTimes:
    return next(row for row in shown.times if row.name == name)


def _stage(shown: SystemFrame, name: str) -> StageLoadRow:
    return next(row for row in shown.stages if row.stage == name)


def test_percentiles_are_those_of_the_time_between_the_readings() -> None:
    """Slow turns before the first reading do not count, and the turns of all hosts count together."""
    one, other = Replica("host"), Replica("host")
    one.turns(*[4.0] * 50)
    before = _reading(0.0, {"a": one, "b": other})
    one.turns(*[0.45] * 10)
    other.turns(*[0.45] * 9, 1.8)
    shown = frame(before, _reading(10.0, {"a": one, "b": other}))
    turn = _times(shown, "turn")
    assert turn.count == 20
    assert shown.turns_per_s == pytest.approx(2.0)
    assert turn.p50_ms is not None
    assert 400 < turn.p50_ms <= 500
    assert turn.p99_ms is not None
    assert 1200 < turn.p99_ms <= 2000
    assert _times(shown, "stt").added_ms == pytest.approx((19 * 450 + 1800) / 20)
    llm = _times(shown, "llm_first_token")
    assert (llm.count, llm.p50_ms, llm.added_ms) == (0, None, 0.0)


def test_nothing_is_measured_without_turns() -> None:
    """Between two equal readings there are no percentiles, no rates and no events."""
    host = Replica("host")
    host.turns(0.5)
    shown = frame(_reading(0.0, {"a": host}), _reading(2.0, {"a": host}))
    assert shown.turns_per_s == 0
    assert all(row.p50_ms is None and row.added_ms is None for row in shown.times)
    assert not any(shown.events.values())


def test_a_stage_above_its_alert_is_marked() -> None:
    """The median of speech to text is above 300 ms, and that of the turn is within 1,200 ms."""
    host = Replica("host")
    before = _reading(0.0, {"a": host})
    host.turns(*[0.6] * 10)
    shown = frame(before, _reading(1.0, {"a": host}))
    assert [row.name for row in shown.times if row.alert] == ["stt"]


def test_a_distant_caller_is_marked() -> None:
    """A median round trip above 150 ms is marked, over all transports together."""
    host = Replica("host")
    before = _reading(0.0, {"a": host})
    assert host.host
    for transport in ("websocket", "webrtc"):
        host.host.round_trip(0.18, transport)
    assert _times(frame(before, _reading(1.0, {"a": host})), "network").alert


def test_events_are_counted_by_label() -> None:
    """Refusals, hedges, breakers and errors of all hosts are summed, and those that did not happen are left out."""
    one, other = Replica("host"), Replica("host")
    assert one.host
    assert other.host
    one.host.refused("full")
    before = _reading(0.0, {"a": one, "b": other})
    one.host.refused("full")
    other.host.refused("full")
    other.host.hedge("sent")
    one.host.error("backend", "llm")
    one.host.breaker("opened")
    events = frame(before, _reading(5.0, {"a": one, "b": other})).events
    assert events["refused handshakes"] == {"full": 2}
    assert events["hedges"] == {"sent": 1}
    assert events["circuit breakers"] == {"opened": 1}
    assert events["errors"] == {"backend": 1}
    assert events["errors by stage"] == {"llm": 1}


def test_a_stage_has_its_replicas_and_requests() -> None:
    """Two of three wanted replicas answer; requests, waits and CPU time are sums over both."""
    host, replicas = Replica("host"), {"r1": Replica("llm"), "r2": Replica("llm")}
    wanted = WantedReplicas(lambda: {"llm": 3})
    host.registry.register(wanted)
    list(wanted.collect())
    wanted.settle()
    before = _reading(0.0, {"a": host, **replicas})
    for replica in replicas.values():
        assert replica.requests
        replica.requests.in_flight.inc()
        replica.requests.ended(0.4, "done", 0.1)
        replica.cpu.inc(2.0)
    shown = frame(before, _reading(4.0, {"a": host, **replicas}))
    llm = _stage(shown, "llm")
    assert (llm.running, llm.wanted, llm.in_flight, llm.failed) == (2, 3, 2, 0)
    assert llm.requests_per_s == pytest.approx(0.5)
    assert llm.cores == pytest.approx(1.0)
    assert llm.queue_p95_ms == pytest.approx(100, rel=0.13)
    assert llm.service_p95_ms == pytest.approx(300, rel=0.13)
    assert [row.stage for row in shown.stages] == ["host", "llm"]


def test_a_replica_that_started_again_counts_from_zero() -> None:
    """A replica whose CPU time is less than before has started again, so its counts are all new."""
    first, second = Replica("stt", cpu_s=50.0), Replica("stt", cpu_s=3.0)
    for replica, count in ((first, 5), (second, 2)):
        assert replica.requests
        for _ in range(count):
            replica.requests.ended(0.1, "done", 0.0)
    shown = frame(_reading(0.0, {"r": first}), _reading(2.0, {"r": second}))
    assert _stage(shown, "stt").requests_per_s == pytest.approx(1.0)


def test_calls_and_places_are_shown() -> None:
    """The calls are those of the hosts' metrics, and the places those that the hosts say."""
    host = Replica("host")
    assert host.host
    host.host.session_opened()
    places = {"max_sessions": 64, "free": 63}
    shown = frame(_reading(0.0, {"a": host}), _reading(1.0, {"a": host}, places=places, silent=("x",)))
    assert (shown.calls, shown.places, shown.free, shown.silent) == (1, 64, 63, ("x",))
    assert (shown.served, shown.limit) == (None, "")
