"""Tests of the simulated turn network: callers whose turns queue for speech to text, language model and voice.

Its throughput and waits match formulas of queueing theory.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from math import comb, factorial

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.capacity.prediction import knee, predict, predicted_knee, refused
from loadtest.capacity.queueing import QueueStage, QueueStation, Steps
from loadtest.capacity.service_times import Curved, Drawer, fixed
from loadtest.capacity.turn_network import CallerModel, ReplyModel, SimulatedRun, TurnNetwork, simulate
from rejoinder.core.capacity.erlang import Queue, blocking
from rejoinder.core.measuring.service_curves import ServiceCurve
from rejoinder.core.settings.settings import HedgingSettings

INSTANT = QueueStage(1, 10_000, fixed(0))
NO_REPLY = ReplyModel(((0.0, 0.0),), 0.0)


@dataclass(frozen=True)
class Exponential:
    """Exponential service times with the mean `mean_s` in seconds, as the formulas of queueing theory assume."""

    mean_s: float
    scv: float = 1.0

    def drawer(self, rng: random.Random) -> Drawer:
        return lambda concurrent: rng.expovariate(1 / self.mean_s)


def repairman_throughput(sessions: int, slots: int, think_s: float, service_s: float) -> float:
    """Return the number of requests served per second by the machine repair model (M/M/c//N).

    `sessions` callers think for `think_s` seconds on average, then queue for one of `slots` for `service_s` seconds.
    """
    ratio = service_s / think_s
    weights = []
    for n in range(sessions + 1):
        weight = comb(sessions, n) * ratio**n
        if n > slots:
            weight *= factorial(n) / (factorial(slots) * slots ** (n - slots))
        weights.append(weight)
    thinking = sum((sessions - n) * weight for n, weight in enumerate(weights)) / sum(weights)
    return thinking / think_s


def one_stage(slots: int, service_s: float, think_s: float) -> TurnNetwork:
    callers = CallerModel(think=Exponential(think_s), speech=fixed(0))
    return TurnNetwork(
        QueueStage(1, slots, Exponential(service_s)), llm=INSTANT, tts=INSTANT, callers=callers, answer=NO_REPLY
    )


@pytest.mark.parametrize(("sessions", "slots", "think_s"), [(4, 1, 5.0), (12, 2, 3.0), (30, 4, 2.0)])
def test_the_closed_network_is_the_machine_repair_model(sessions: int, slots: int, think_s: float) -> None:
    """With one stage of exponential times, turns per second match the machine repair model within 4 standard errors.

    So does the mean latency of a turn.
    """
    expected = repairman_throughput(sessions, slots, think_s, service_s=0.5)
    runs = [
        simulate(one_stage(slots, 0.5, think_s), sessions=sessions, for_s=1000, seed=seed, warm_up_s=50)
        for seed in range(6)
    ]
    rates = np.array([run.turns_per_s for run in runs])
    assert abs(rates.mean() - expected) < 4 * rates.std(ddof=1) / len(rates) ** 0.5
    response_s = sessions / expected - think_s  # Little's law
    means = np.array([np.mean([turn.total_s for turn in run.turns]) for run in runs])
    assert abs(means.mean() - response_s) < 4 * means.std(ddof=1) / len(means) ** 0.5


@pytest.mark.parametrize(("arrivals_per_s", "slots"), [(0.7, 1), (3.0, 4), (8.5, 10)])
def test_an_open_station_is_erlang_c(arrivals_per_s: float, slots: int) -> None:
    """The mean wait of Poisson arrivals at one replica matches Erlang C within 4 standard errors of six runs."""
    means = []
    for seed in range(6):
        env, rng = simpy.Environment(), random.Random(seed)
        station = QueueStation(env, QueueStage(1, slots, Exponential(1.0)), rng)
        env.process(poisson(env, station, rng, arrivals_per_s))
        env.run(until=200)
        station.measured_since = env.now
        env.run(until=4000)
        means.append(np.mean(station.waits_s))
    expected = Queue(arrivals_per_s, 1.0, slots).mean_wait_s
    assert abs(np.mean(means) - expected) < 4 * np.std(means, ddof=1) / len(means) ** 0.5


def poisson(env: simpy.Environment, station: QueueStation, rng: random.Random, per_s: float) -> Steps:
    while True:
        yield env.timeout(rng.expovariate(per_s))
        replica = station.choose()
        assert replica is not None
        env.process(station.serve(replica))


def test_two_choices_lie_between_one_queue_and_chance() -> None:
    """If requests join the shorter of two randomly chosen queues, the mean wait is longer than in one common queue.

    It is less than half of the mean wait in one randomly chosen queue.
    """
    waits = {}
    for replicas, slots in ((1, 8), (8, 1)):
        env, rng = simpy.Environment(), random.Random(2)
        station = QueueStation(env, QueueStage(replicas, slots, Exponential(1.0)), rng)
        env.process(poisson(env, station, rng, 6.4))
        env.run(until=100)
        station.measured_since = env.now
        env.run(until=5000)
        waits[replicas] = float(np.mean(station.waits_s))
    at_random = Queue(0.8, 1.0, 1).mean_wait_s
    assert waits[1] < waits[8] < at_random / 2


TYPICAL = TurnNetwork(
    stt=QueueStage(1, 4, Curved(ServiceCurve(200, 0.3))),
    llm=QueueStage(2, 4, Curved(ServiceCurve(300, 0.5))),
    tts=QueueStage(1, 8, Curved(ServiceCurve(80, 0.2))),
    callers=CallerModel(fixed(0.5), fixed(1.0)),
    answer=ReplyModel(((0.05, 1.5), (0.2, 3.0)), 0.25),
    silence=fixed(0.09),
    endpoint=fixed(0.14),
    delivery=fixed(0.02),
)


def p(run: SimulatedRun, percentile: float) -> float:
    return float(np.percentile([turn.total_s for turn in run.turns], percentile))


def test_a_turn_without_load_is_the_sum_of_its_times() -> None:
    """With one session and fixed stage times, every turn's latency is the sum of these times.

    From one turn to the next, the caller's speech, thinking and listening are added.
    """
    network = replace(
        TYPICAL,
        stt=QueueStage(1, 1, fixed(0.2)),
        llm=QueueStage(1, 1, fixed(0.3)),
        tts=QueueStage(1, 1, fixed(0.08), fixed(0.01)),
    )
    run = simulate(network, 1, 1000)
    total_s = 0.09 + 0.2 + 0.3 + 0.05 + 0.09 + 0.02
    assert {round(turn.total_s, 9) for turn in run.turns} == {round(total_s, 9)}
    assert run.turns_per_s == pytest.approx(1 / (0.5 + 1.0 + total_s + 4.5), rel=0.01)
    assert run.busy["llm"] == pytest.approx(run.turns_per_s * (0.3 + 0.25), rel=0.01)


def test_endpointing_hides_a_faster_transcript() -> None:
    """A transcript of 100 ms runs in parallel with endpointing of 140 ms, so both together take 140 ms."""
    network = replace(TYPICAL, stt=QueueStage(1, 4, fixed(0.1)), endpoint=fixed(0.14))
    times = {round(turn.transcript_s, 9) for turn in simulate(network, 1, 200).turns}
    assert times == {0.14}


def test_the_same_seed_is_the_same_run() -> None:
    """Two runs with the same seed are equal, and runs with different seeds are not."""
    assert simulate(TYPICAL, 10, 100, seed=3) == simulate(TYPICAL, 10, 100, seed=3)
    assert simulate(TYPICAL, 10, 100, seed=3) != simulate(TYPICAL, 10, 100, seed=4)


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 4))
def test_utilisation_law(sessions: int, replicas: int, slots: int) -> None:
    """At any load, the share of busy slots is throughput times service time divided by the number of slots."""
    network = replace(TYPICAL, stt=QueueStage(replicas, slots, fixed(0.4)))
    run = simulate(network, sessions, 400)
    assert run.busy["stt"] == pytest.approx(run.turns_per_s * 0.4 / (replicas * slots), rel=0.05, abs=0.01)
    assert run.busy["stt"] <= 1 + 1e-9


def test_abandoned_transcripts_are_load() -> None:
    """A cancelled transcript occupies its slot until it is cancelled.

    Two cancelled transcripts of 0.2 s per turn add 0.4 s of work to each turn.
    """
    callers = replace(TYPICAL.callers, abandoned=2.0, abandoned_s=0.2)
    network = replace(TYPICAL, stt=QueueStage(1, 50, fixed(0.3)), callers=callers)
    run = simulate(network, 10, 500)
    assert run.busy["stt"] * 50 == pytest.approx(run.turns_per_s * (0.3 + 0.4), rel=0.05)


def test_hedging_cuts_stalls_at_its_budget() -> None:
    """If 2% of the answers stall for 2 to 8 s, hedging lowers p99 latency by at least 70%.

    It sends at most 5% more requests, and the median changes by at most 5%.
    """
    stalling = QueueStage(3, 16, Curved(ServiceCurve(300, 0.28, stall_share=0.02)))
    plain = replace(TYPICAL, llm=stalling, stt=QueueStage(2, 8, fixed(0.1)), tts=QueueStage(2, 8, fixed(0.05)))
    hedged = replace(plain, hedging=HedgingSettings())
    without, with_hedge = simulate(plain, 40, 1500), simulate(hedged, 40, 1500)
    assert p(with_hedge, 99) < 0.3 * p(without, 99)
    assert p(with_hedge, 50) == pytest.approx(p(without, 50), rel=0.05)
    assert 0 < with_hedge.hedges <= 0.05 * len(with_hedge.turns)


def test_a_single_replica_cannot_be_hedged() -> None:
    """A stage with a single replica sends no hedge."""
    network = replace(
        TYPICAL, llm=QueueStage(1, 8, Curved(ServiceCurve(300, stall_share=0.05))), hedging=HedgingSettings()
    )
    assert simulate(network, 10, 300).hedges == 0


def test_a_prediction_names_its_bottleneck_and_its_error() -> None:
    """A prediction's bottleneck is the busiest stage, and its p50, p95 and p99 latencies rise.

    The error of p95, from runs with different seeds, is above 0 and below 20% of the value.
    """
    prediction = predict(replace(TYPICAL, tts=QueueStage(1, 1, Curved(ServiceCurve(80, 0.2)))), 10)
    assert prediction.bottleneck == "tts"
    assert prediction.p50_ms.value < prediction.p95_ms.value < prediction.p99_ms.value
    assert 0 < prediction.p95_ms.error < 0.2 * prediction.p95_ms.value


def test_more_replicas_carry_more() -> None:
    """Twice the replicas in the busiest stage give 1.7 to 2.4 times the knee.

    The knee is the largest number of sessions with a p95 latency within 1500 ms.
    """
    single = replace(TYPICAL, stt=QueueStage(1, 1, fixed(0.3)))
    double = replace(TYPICAL, stt=QueueStage(2, 1, fixed(0.3)))
    one, two = predicted_knee(single, 1500, 120), predicted_knee(double, 1500, 120)
    assert 1.7 * one <= two <= 2.4 * one


@given(st.integers(0, 3000))
def test_the_search_finds_the_knee(true_knee: int) -> None:
    """The search returns the largest number of sessions within the limit, or its upper bound."""
    assert knee(lambda n: 1.0 if n <= true_knee else 2.0, 1.5, most=2000) == min(true_knee, 2000)


def test_admission_is_erlang_b() -> None:
    """With 0.3 calls per second of 300 s each (90 Erlangs) and 100 sessions, 2.7% of calls are refused (Erlang B)."""
    assert refused(0.3, 300, 100) == blocking(90, 100) == pytest.approx(0.027, abs=0.0005)


def test_impossible_networks_are_refused() -> None:
    """A network without replica, session, segment or completed turn raises ValueError."""
    with pytest.raises(ValueError, match="at least one replica"):
        QueueStage(0, 1, fixed(0.1))
    with pytest.raises(ValueError, match="at least one session"):
        simulate(TYPICAL, 0, 10)
    with pytest.raises(ValueError, match="segment"):
        ReplyModel((), 0.1)
    with pytest.raises(ValueError, match="no turn"):
        predict(replace(TYPICAL, callers=CallerModel(fixed(1e6), fixed(1))), 1, 10)
