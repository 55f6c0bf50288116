"""Simulation of many hosts that share many language model replicas, with the product's hedging and circuit breakers.

Each host has its own `Hedger`: its own delays, budget and circuits. The replicas are shared. 2% of the requests stall
for 2 to 8 s, but every replica is healthy, so every circuit that opens is a mistake.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from actors.stages.hedged_llm import GenerationStats, Hedger
from actors.stages.ports import ANYWHERE, LlmRequest, LlmStream, LlmUsage, TokenDelta
from actors.stages.replica_health import PROBE
from actors.stages.retry import StageFailures
from benchmarks.scaling.virtual_clock import run_jumping
from rejoinder.core.errors import RejoinderError
from rejoinder.core.measuring.service_curves import ServiceCurve, ServiceSampler
from rejoinder.core.resilience.stream_report import StreamReport, StreamWatch
from rejoinder.core.settings.settings import HedgingSettings, Settings

STALLS = ServiceCurve(150, sigma=0.2, stall_share=0.02)
"""Time to the first token: the curve of the case "stalls" of `rejoinder bench hedging`."""

REST_S = 0.25
"""Seconds from the first token to the last."""

REPORT_S = 0.002
"""Seconds that the question for a report takes."""

PREFIX = ("hedge", "breaker", "error")


@dataclass(frozen=True, slots=True)
class HedgingScenario:
    """A cluster and its load.

    Attributes:
        hosts: Number of session hosts.
        replicas: Number of language model replicas.
        rate: Requests per second of all hosts.
        requests: Number of requests.
        hung: Number of replicas whose engine hangs after half of the requests: they send no token any more.
    """

    hosts: int = 80
    replicas: int = 40
    rate: float = 400.0
    requests: int = 1_000_000
    hung: int = 0


@dataclass(slots=True)
class HedgingOutcome:
    """What happened.

    Attributes:
        ttft_s: Times to the first token of all answered requests, in seconds.
        attempts: Requests that reached a replica, probes included.
        probes: Probes among `attempts`.
        unanswered: Requests without an answer.
        counts: Outcomes of hedging and of the breakers, by name.
    """

    ttft_s: list[float] = field(default_factory=list)
    attempts: int = 0
    probes: int = 0
    unanswered: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """Number of requests."""
        return len(self.ttft_s) + self.unanswered

    @property
    def extra(self) -> float:
        """Further attempts, probes included, per request."""
        return self.attempts / self.requests - 1

    def quantile(self, share: float) -> float:
        """Return the quantile of the time to the first token, in seconds."""
        ordered = sorted(self.ttft_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class _Metrics:
    """Counts hedges and breakers, and ignores other measurements."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        def count(*labels: object, **_: object) -> None:
            if name in PREFIX:
                self._counts[" ".join([name, *map(str, labels)])] += 1

        return count


class _Replica:
    """One healthy replica. Its slots are never the limit here."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.ongoing = 0
        self.watch = StreamWatch()
        self.sampler = ServiceSampler(STALLS, rng.random)
        self.hangs = False


@dataclass(slots=True)
class _Stream:
    """The answer of one replica."""

    served_by: _Replica

    @property
    def replica(self) -> str:
        return self.served_by.name

    async def __aiter__(self) -> AsyncIterator[TokenDelta]:
        loop, replica = asyncio.get_running_loop(), self.served_by
        stream = replica.watch.opened(loop.time())
        try:
            await asyncio.sleep(1e6 if replica.hangs else replica.sampler.next_s(1))
            replica.watch.token(stream, loop.time())
            yield TokenDelta("Yes. ")
            await asyncio.sleep(1e6 if replica.hangs else REST_S)
            replica.watch.token(stream, loop.time())
            yield TokenDelta("It is.", 23, "stop", LlmUsage(20, 24))
        finally:
            replica.watch.closed(stream)


class SimulatedReplicas:
    """`LlmPort` of all hosts. A request goes to the less busy of two random replicas."""

    def __init__(self, scenario: HedgingScenario, outcome: HedgingOutcome, rng: random.Random) -> None:
        self._rng = rng
        self._outcome = outcome
        self._replicas = [_Replica(f"r{number}", rng) for number in range(scenario.replicas)]

    def hang(self, count: int) -> None:
        """Let the engines of the first `count` replicas hang."""
        for replica in self._replicas[:count]:
            replica.hangs = True

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        """Yield the stream of an answer. `strict` has no effect, because there are always other replicas."""
        replica = self._choose(avoid, only)
        self._outcome.attempts += 1
        self._outcome.probes += request.messages == PROBE
        replica.ongoing += 1
        try:
            yield _Stream(replica)
        finally:
            replica.ongoing -= 1

    def queue(self, avoid: frozenset[str]) -> int | None:
        """Return 0: no replica has a queue."""
        return 0

    async def report(self, replica: str, idle_s: float) -> StreamReport:
        """Return the replica's own report after REPORT_S."""
        await asyncio.sleep(REPORT_S)
        found = self._choose(ANYWHERE, replica)
        return found.watch.report(idle_s, asyncio.get_running_loop().time())

    def _choose(self, avoid: frozenset[str], only: str) -> _Replica:
        if only:
            return self._replicas[int(only[1:])]
        first, second = self._one(avoid), self._one(avoid)
        return first if first.ongoing <= second.ongoing else second

    def _one(self, avoid: frozenset[str]) -> _Replica:
        for _ in range(100):
            replica = self._rng.choice(self._replicas)
            if replica.name not in avoid:
                return replica
        return self._rng.choice(self._replicas)


async def _play(scenario: HedgingScenario, settings: Settings, seed: int) -> HedgingOutcome:
    rng, outcome, loop = random.Random(seed), HedgingOutcome(), asyncio.get_running_loop()
    replicas, metrics = SimulatedReplicas(scenario, outcome, rng), _Metrics(outcome.counts)
    hedgers = [Hedger(replicas, settings, metrics, loop.time) for _ in range(scenario.hosts)]

    async def ask(hedger: Hedger, number: int) -> None:
        began, first = loop.time(), 0.0
        request = LlmRequest((), session=f"s{number}")
        try:
            async for _ in hedger.stream(request, StageFailures(metrics), GenerationStats(), 20.0):
                first = first or loop.time() - began
            outcome.ttft_s.append(first)
        except RejoinderError:
            outcome.unanswered += 1

    running = [asyncio.create_task(hedger.run()) for hedger in hedgers]
    async with asyncio.TaskGroup() as group:
        for number in range(scenario.requests):
            if number == scenario.requests // 2:
                replicas.hang(scenario.hung)
            await asyncio.sleep(rng.expovariate(scenario.rate))
            group.create_task(ask(rng.choice(hedgers), number))
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    return outcome


def simulate(scenario: HedgingScenario, *, hedging: bool = True, seed: int = 1) -> HedgingOutcome:
    """Return the outcome of a scenario in virtual time, with or without hedging. The breakers are on in both cases."""
    settings = Settings(hedging=HedgingSettings(enabled=hedging))
    return run_jumping(_play(scenario, settings, seed))


HEADER = (
    "| hosts | replicas | requests | hedging | hung | p50 ms | p99 ms | further requests | opened | unanswered |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def row(scenario: HedgingScenario, *, hedging: bool = True, seed: int = 1) -> str:
    """Simulate a scenario, and return its line of the table."""
    outcome = simulate(scenario, hedging=hedging, seed=seed)
    return (
        f"| {scenario.hosts} | {scenario.replicas} | {outcome.requests} | {'on' if hedging else 'off'} "
        f"| {scenario.hung} | {outcome.quantile(0.5) * 1000:.0f} | {outcome.quantile(0.99) * 1000:.0f} "
        f"| {outcome.extra:.2%} | {outcome.counts['breaker opened']} | {outcome.unanswered} |"
    )


def report(requests: int = 1_000_000, seed: int = 1) -> Iterator[str]:
    """Yield the lines of the table: many hosts with and without hedging, few hosts, little load, a hung replica."""
    yield from HEADER
    few = max(2000, requests // 10)
    yield row(HedgingScenario(requests=requests), seed=seed)
    yield row(HedgingScenario(requests=few), hedging=False, seed=seed)
    yield row(HedgingScenario(hosts=3, replicas=3, rate=40.0, requests=few), seed=seed)
    yield row(HedgingScenario(hosts=3, replicas=3, rate=40.0, requests=few), hedging=False, seed=seed)
    yield row(HedgingScenario(rate=40.0, requests=few), seed=seed)
    yield row(HedgingScenario(requests=few, hung=1), seed=seed)
