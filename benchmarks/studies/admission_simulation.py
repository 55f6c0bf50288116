"""Simulation of calls in virtual time that drives the real admission decision (`StageAdmission`, `LoadMeter`).

Callers ask hosts for a place, speak, and wait for the answer of three stages: speech to text, the language model, text
to speech. The replicas of a stage have slots and queues. Requests may also share cores: then each of k running requests
gets the share cores / k of its speed, as on a machine whose models run on the CPU. Speculative requests (interim
transcripts, replies that are discarded) are made unless the host yields.

    python -m benchmarks.studies.admission_simulation

prints a table: turns at the largest number of calls that fits, then with three times as many callers.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from deployments.serving.load_exchange import tier_limits
from rejoinder.core.capacity.budgets import Tier
from rejoinder.core.resilience.admission import AdmissionRefusal
from rejoinder.core.resilience.stage_admission import StageAdmission, cold_places
from rejoinder.core.resilience.stage_load import LoadMeter, Work
from rejoinder.core.settings.overload import AdmissionSettings

TICK_S = 0.5
SPEECH_S = (1.5, 3.5)
REPLY_S = (2.0, 4.0)
PAUSE_S = (0.5, 1.5)
INTERIM_S = 0.4
LOST_DRAFTS = 0.3


@dataclass(frozen=True)
class StageModel:
    """A stage of the simulation.

    Attributes:
        replicas: Number of replicas.
        slots: Slots of one replica.
        first_s: Median time to the first output without load, in seconds (log-normal with sigma 0.2).
        rest_s: Time from the first output to the end, in seconds. The request keeps its slot.
    """

    replicas: int
    slots: int
    first_s: float
    rest_s: float = 0.0


@dataclass(frozen=True)
class System:
    """What is simulated: the stages, the number of hosts, the cores that all requests share, and the settings."""

    stages: dict[str, StageModel]
    hosts: int = 1
    cores: float = math.inf
    settings: AdmissionSettings = field(default_factory=AdmissionSettings)
    redispatch: bool = True


TWO_CORES = System(
    {"stt": StageModel(1, 1, 0.12), "llm": StageModel(2, 4, 0.12, 0.8), "tts": StageModel(1, 1, 0.08, 0.15)}, cores=2.0
)
"""About the default models on two cores. CPU seconds per request are estimates, not measurements."""
SLOTS = System(
    {"stt": StageModel(2, 4, 0.1), "llm": StageModel(2, 8, 0.2, 1.0), "tts": StageModel(2, 4, 0.08, 0.5)}, hosts=3
)
"""Emulated engines on other machines than the hosts: only the slots limit."""


@dataclass
class SimulatedCall:
    """One caller. `admitted_at` is None while the caller has no place, `refusals` its number of refused attempts."""

    number: int
    leaves_at: float
    host: int = -1
    admitted_at: float | None = None
    refusals: int = 0


@dataclass(frozen=True)
class Turn:
    """An answered turn: the end of the caller's speech, and the seconds until the first audio."""

    at: float
    seconds: float


@dataclass
class Job:
    """A request to a stage, its remaining times, and what to do with its outputs."""

    work: Work
    first_s: float
    rest_s: float
    on_first: Callable[[], None]
    host: int
    replica: SimulatedReplica | None = None
    is_first: bool = True


class SimulatedReplica:
    """A replica of a stage: slots, a queue (requests that a turn waits for go first) and a meter."""

    def __init__(self, name: str, slots: int) -> None:
        self.meter = LoadMeter(name, slots)
        self.free = slots
        self.queues: tuple[deque[Job], deque[Job]] = (deque(), deque())

    @property
    def length(self) -> int:
        """Requests that run or wait."""
        return self.meter.slots - self.free + sum(map(len, self.queues))


class Simulation:
    """Simulation of one system. `run` returns when the virtual time is over.

    Attributes:
        turns: The answered turns.
        asked: Number of turns that callers with a place have begun to wait for.
        refused: Reasons of the refused attempts.
        live: (time, calls) after each admission and each end.
    """

    def __init__(self, system: System, seed: int = 1, *, admission: bool = True) -> None:
        self.now = 0.0
        self.turns: list[Turn] = []
        self.asked = 0
        self._open_turns: dict[int, float] = {}
        self.refused: list[tuple[float, AdmissionRefusal]] = []
        self.live: list[tuple[float, int]] = []
        self.slowdown = 1.0
        self._system = system
        self._random = random.Random(seed)
        settings = system.settings.model_copy(update={"enabled": admission})
        slots = {name: stage.slots * stage.replicas for name, stage in system.stages.items()}
        cold = cold_places(settings.cold_start_calls, slots)
        self.hosts = [
            StageAdmission(settings, tier_limits(Tier.GOOD), cold, 5.0, phase=self._random.random(), hosts=system.hosts)
            for _ in range(system.hosts)
        ]
        self._replicas = {
            name: [SimulatedReplica(f"{name}-{index}", stage.slots) for index in range(stage.replicas)]
            for name, stage in system.stages.items()
        }
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._running: list[tuple[float, int, Job]] = []
        self._progress = 0.0
        self._progressed_at = 0.0
        self._calls = 0
        self.at(0.0, self._tick)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """SimulatedCall `action` at the virtual time `when`."""
        heapq.heappush(self._events, (when, next(self._numbers), action))

    def run(self, until: float) -> None:
        """Run until this virtual time."""
        while True:
            ends_at = self._next_end()
            event_at = self._events[0][0] if self._events else math.inf
            if min(ends_at, event_at) > until:
                self._advance(until)
                return
            if ends_at <= event_at:
                self._advance(ends_at)
                self._step(heapq.heappop(self._running)[2])
            else:
                self._advance(event_at)
                heapq.heappop(self._events)[2]()

    def call(self, at: float, seconds: float, *, patient: bool = False) -> None:
        """Let a caller ask for a place at `at` and stay for `seconds`. A patient one asks again after Retry-After."""
        call = SimulatedCall(next(self._numbers), seconds)
        self.at(at, lambda: self._ask(call, patient))

    def _ask(self, call: SimulatedCall, patient: bool) -> None:
        order = sorted(range(len(self.hosts)), key=lambda index: self.hosts[index].live)
        for index in order if self._system.redispatch else order[:1]:
            refusal = self.hosts[index].refusal(self.now)
            if refusal is None:
                self._admit(call, index)
                return
        assert refusal is not None
        self.refused.append((self.now, refusal.limit))
        call.refusals += 1
        if patient:
            self.at(self.now + refusal.retry_after_s, lambda: self._ask(call, patient))

    def _admit(self, call: SimulatedCall, host: int) -> None:
        call.host, call.admitted_at = host, self.now
        call.leaves_at += self.now
        self.hosts[host].entered(self.now)
        self._count(1)
        self._speak(call)

    def _count(self, change: int) -> None:
        self._calls += change
        self.live.append((self.now, self._calls))

    def _speak(self, call: SimulatedCall) -> None:
        if self.now >= call.leaves_at:
            self.hosts[call.host].left(self.now)
            self._count(-1)
            return
        speech_s = self._random.uniform(*SPEECH_S)
        for part in range(1, int(speech_s / INTERIM_S)):
            self.at(self.now + part * INTERIM_S, lambda: self._interim(call))
        self.at(self.now + speech_s, lambda: self._turn(call))

    def _interim(self, call: SimulatedCall) -> None:
        if not self.hosts[call.host].yields:
            self._request("stt", call.host, essential=False)

    def _turn(self, call: SimulatedCall) -> None:
        asked_at = self.now
        self.asked += 1
        self._open_turns[call.number] = asked_at
        if not self.hosts[call.host].yields and self._random.random() < LOST_DRAFTS:
            self._request("llm", call.host, cancelled=True)

        def answered() -> None:
            del self._open_turns[call.number]
            self.turns.append(Turn(asked_at, self.now - asked_at))
            self.hosts[call.host].turn(self.now - asked_at, self.now)
            self.at(self.now + self._random.uniform(*REPLY_S), lambda: self._pause(call))

        def spoken() -> None:
            self._request("tts", call.host, on_first=answered)

        self._request("stt", call.host, on_first=lambda: self._request("llm", call.host, on_first=spoken))

    def _pause(self, call: SimulatedCall) -> None:
        self.at(self.now + self._random.uniform(*PAUSE_S), lambda: self._speak(call))

    def _request(
        self,
        stage: str,
        host: int,
        *,
        on_first: Callable[[], None] = lambda: None,
        essential: bool = True,
        cancelled: bool = False,
    ) -> None:
        model = self._system.stages[stage]
        pair = self._random.sample(self._replicas[stage], min(2, model.replicas))
        replica = min(pair, key=lambda found: found.length)
        first_s = model.first_s * self._random.lognormvariate(0.0, 0.2) * self.slowdown
        rest_s = 0.0 if cancelled else model.rest_s * self.slowdown
        work = Work(self.now, essential)
        job = Job(work, first_s=first_s, rest_s=rest_s, on_first=on_first, host=host, replica=replica)
        replica.meter.asked(f"host-{host}", self.hosts[host].live, self.now)
        replica.meter.begin(work)
        replica.queues[0 if essential else 1].append(job)
        self._start(replica)

    def _start(self, replica: SimulatedReplica) -> None:
        while replica.free and any(replica.queues):
            job = (replica.queues[0] or replica.queues[1]).popleft()
            replica.free -= 1
            job.work.queue_s = self.now - job.work.arrived_at
            self._work(job, job.first_s)

    def _work(self, job: Job, seconds: float) -> None:
        self._advance(self.now)
        heapq.heappush(self._running, (self._progress + seconds, next(self._numbers), job))

    def _step(self, job: Job) -> None:
        """Report the first output of a job, or its end."""
        assert job.replica is not None
        replica = job.replica
        if job.is_first:
            job.is_first = False
            job.work.first_at = self.now
            report = replica.meter.report(self.now, f"host-{job.host}")
            stage = report.replica.split("-")[0]
            self.hosts[job.host].note(stage, report, self.now)
            job.on_first()
            if job.rest_s:
                self._work(job, job.rest_s)
                return
        replica.meter.end(job.work, self.now)
        replica.free += 1
        self._start(replica)

    @property
    def oldest_open_turn_s(self) -> float:
        """Seconds for which the oldest turn without an answer has waited, 0 if there is none."""
        return self.now - min(self._open_turns.values(), default=self.now)

    @property
    def _rate(self) -> float:
        return min(1.0, self._system.cores / len(self._running)) if self._running else 1.0

    def _next_end(self) -> float:
        if not self._running:
            return math.inf
        return self._progressed_at + max(0.0, self._running[0][0] - self._progress) / self._rate

    def _advance(self, now: float) -> None:
        self._progress += (now - self._progressed_at) * self._rate
        self._progressed_at = self.now = now

    def _tick(self) -> None:
        for host in self.hosts:
            host.tick(self.now)
        self.at(self.now + TICK_S, self._tick)


def quantile_ms(simulation: Simulation, quantile: float, since: float = 0.0, until: float = math.inf) -> float:
    """Return a quantile of the latency, in ms, of turns whose speech ended between two times. 0 without a turn."""
    found = sorted(turn.seconds for turn in simulation.turns if since <= turn.at < until)
    return 1000 * found[int(quantile * (len(found) - 1))] if found else 0.0


def at_fixed_load(system: System, calls: int, seconds: float = 120.0, seed: int = 1) -> Simulation:
    """Return a simulation in which this many callers are let in within 10 s and stay, without admission control."""
    simulation = Simulation(system, seed, admission=False)
    for index in range(calls):
        simulation.call(10.0 * index / calls, math.inf)
    simulation.run(seconds)
    return simulation


def largest_load(system: System, limit_ms: float = 600.0) -> int:
    """Return the largest number of calls with which the median turn stays below `limit_ms`, by bisection."""
    low, high = 1, 2
    while quantile_ms(at_fixed_load(system, high), 0.5, since=30.0) < limit_ms:
        low, high = high, 2 * high
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        fits = quantile_ms(at_fixed_load(system, middle), 0.5, since=30.0) < limit_ms
        low, high = (middle, high) if fits else (low, middle)
    return low


def overload(system: System, calls: int, *, ramp_s: float = 5.0, seconds: float = 120.0, seed: int = 1) -> Simulation:
    """Return a simulation in which `calls` callers ask for a place within `ramp_s` and ask again when refused."""
    simulation = Simulation(system, seed)
    for index in range(calls):
        simulation.call(ramp_s * index / calls, 60.0, patient=True)
    simulation.run(seconds)
    return simulation


def main() -> None:
    """Print the table."""
    print("system | calls that fit | p50 | p95 | at 3x: most calls | p50 | p95 | answered | refusals")
    for name, system in (("two cores", TWO_CORES), ("slots, 3 hosts", SLOTS)):
        fits = largest_load(system)
        limit = at_fixed_load(system, fits)
        crowd = overload(system, 3 * fits)
        most = max(calls for _, calls in crowd.live)
        reasons = {reason.value for _, reason in crowd.refused}
        print(
            f"{name} | {fits} | {quantile_ms(limit, 0.5, 30.0):.0f} | {quantile_ms(limit, 0.95, 30.0):.0f} | {most} | "
            f"{quantile_ms(crowd, 0.5):.0f} | {quantile_ms(crowd, 0.95):.0f} | {len(crowd.turns)}/{crowd.asked} | "
            f"{len(crowd.refused)} {sorted(reasons)}"
        )


if __name__ == "__main__":
    main()
