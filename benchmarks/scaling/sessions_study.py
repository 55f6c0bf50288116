"""Simulation of thousands of talking sessions on a cluster, with the product's own decisions.

These are admission, autoscaling, hedging and circuit breakers.

Callers arrive within RAMP_S, speak, wait for the answer, listen, and speak again. A host admits them with
`StageAdmission`. The answer passes speech to text, the language model and the voice, whose replicas report their load
with `LoadMeter`. `StagePolicy` and `HostPolicy` scale them up to what the nodes hold. Late first tokens are hedged.

The service times are published measurements (`rejoinder.core.measuring.service_curves`), and the cost of a session on a
host is measured (`docs/results/concurrency.md`). So every result is a projection.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from benchmarks.scaling.controller import SimulatedController
from benchmarks.scaling.virtual_clock import EventQueue
from deployments.serving.autoscaling import (
    ARRIVALS_PER_S,
    BEGAN,
    ENDED,
    LATE,
    LOOP_LAG_S,
    SERVICE_S,
    SESSIONS,
    HostPolicy,
    StagePolicy,
)
from deployments.serving.load_exchange import open_admission
from rejoinder.core.measuring.recent_load import RecentLoad
from rejoinder.core.measuring.service_curves import PROFILES, EngineProfile, ServiceSampler
from rejoinder.core.resilience.admission import Admission
from rejoinder.core.resilience.circuit_breaker import CircuitBreaker
from rejoinder.core.resilience.hedging import (
    CancelAttempt,
    FirstToken,
    HedgeDue,
    HedgePolicy,
    PrimarySent,
    Race,
    RaceEvent,
    ReplicaSilent,
    StartHedge,
    UseAttempt,
    step,
)
from rejoinder.core.resilience.stage_load import LoadMeter, StageReport, Work
from rejoinder.core.resilience.stream_report import StreamWatch
from rejoinder.core.settings.settings import Autoscaling, Settings

RAMP_S = 60.0
SPEECH_S, REPLY_S, PAUSE_S = (1.5, 3.5), (2.0, 4.0), (0.5, 1.5)
DECIDE_S = 2.0
TOKENS = 24
"""Tokens of an answer."""

VOICE_REST_S = 0.3
"""Seconds for which a segment of 3 s occupies the voice after its first audio, at ten times real time."""

REPORT_EVERY_S = 0.25
"""Age of a replica's report at most, in seconds. The product calculates one for each answer."""

STALL_SHARE = 0.01
"""Share of the language model's requests that stall for 2 to 8 s: an assumption."""

HOST_CORES, SESSION_CORES = 0.169, 0.0071
"""Cores of a host without sessions and of one session, as measured in docs/results/concurrency.md."""

NODE_LOAD = 0.7
"""Largest share of a node's cores that is planned."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A cluster.

    Attributes:
        nodes: Number of nodes.
        cores: Cores of a node. Hosts use those that no stage needs.
        most: Largest number of replicas of each stage: the cards that it gets.
        targets: `target_ongoing_requests` of each stage. Below the 64 slots, because requests that share a card slow
            each other down: the language model's by 4 ms each.
        settings: The settings of the application.
        warm: True if the stages and hosts that the callers need run when the callers arrive. False: they start with two
            replicas of each stage and six hosts.
    """

    nodes: int = 20
    cores: int = 32
    most: dict[str, int] = field(default_factory=lambda: {"stt": 3, "llm": 12, "tts": 5})
    targets: dict[str, int] = field(default_factory=lambda: {"stt": 32, "llm": 16, "tts": 32})
    settings: Settings = field(default_factory=Settings)
    warm: bool = True


@dataclass(slots=True)
class SessionsOutcome:
    """Result of a simulation, measured in its last part.

    Attributes:
        admitted: Sessions that have a place at the end.
        waiting: Callers that are still refused at the end.
        refusals: Refusals by reason, over the whole simulation.
        turns_s: Seconds from the end of speech to the first audio, of the turns in the measured part.
        requests: Requests to the language model in the measured part.
        extra: Hedges among them.
        opened: Circuits that opened.
        utilisation: Mean share of busy slots of each stage in the measured part.
        replicas: Replicas of each stage and hosts at the end.
        host_cores: Cores that the hosts use, as measured for one session.
    """

    admitted: int = 0
    waiting: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    turns_s: list[float] = field(default_factory=list)
    requests: int = 0
    extra: int = 0
    opened: int = 0
    utilisation: dict[str, float] = field(default_factory=dict)
    replicas: dict[str, int] = field(default_factory=dict)
    host_cores: float = 0.0

    def quantile_ms(self, share: float) -> float:
        """Return the quantile of the turns' latency in milliseconds; 0 without turns."""
        ordered = sorted(self.turns_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else 0.0


@dataclass(slots=True, eq=False)
class _Job:
    """One request to a replica. `rest_s` is the time from its first output to its end."""

    work: Work
    host: _Host
    rest_s: float
    first: Callable[[], None]
    replica: _SlotReplica | None = None
    stream: int = 0
    over: bool = False


@dataclass(slots=True, eq=False)
class _SlotReplica:
    """Slots, queue and meters of one replica."""

    name: str
    meter: LoadMeter
    sampler: ServiceSampler
    busy: int = 0
    queue: deque[_Job] = field(default_factory=deque)
    watch: StreamWatch = field(default_factory=StreamWatch)
    _report: StageReport | None = None
    _reported_at: float = -math.inf

    @property
    def length(self) -> int:
        """Requests in the replica."""
        return self.busy + len(self.queue)

    def report(self, host: _Host, now: float) -> StageReport:
        """Return the load for a host. It is at most REPORT_EVERY_S old; only the calls of the host are new."""
        if self._report is None or now - self._reported_at >= REPORT_EVERY_S:
            self._report, self._reported_at = self.meter.report(now), now
        return replace(self._report, other_calls=max(0, self._report.other_calls - host.live))


class _Stage:
    """A stage with its replicas and its autoscaler."""

    def __init__(
        self,
        name: str,
        profile: EngineProfile,
        clock: EventQueue,
        rng: random.Random,
        *,
        most: int,
        target: int,
        first: int,
    ) -> None:
        self.name, self.profile = name, profile
        self._clock, self._rng = clock, rng
        curve = replace(profile.curve, stall_share=STALL_SHARE) if name == "llm" else profile.curve
        self._curve = curve
        scaling = Autoscaling(min_replicas=2, max_replicas=most, target_ongoing_requests=target)
        policy = StagePolicy(target=target, queue_limit_s=scaling.queue_delay_ms / 1000)
        self.controller = SimulatedController(policy, scaling, start_s=60.0, running=first, planned=first)
        self._numbers = count()
        self.replicas = [self._new() for _ in range(first)]
        self._load = RecentLoad(10.0, scaling.queue_delay_ms / 1000)
        self.busy_s = self.slot_s = 0.0
        self._ticked = 0.0

    def _new(self) -> _SlotReplica:
        name = f"{self.name}{next(self._numbers)}"
        return _SlotReplica(name, LoadMeter(name, self.profile.slots), ServiceSampler(self._curve, self._rng.random))

    def send(self, job: _Job, avoid: frozenset[str] = frozenset()) -> _SlotReplica:
        """Send a request to the less busy of two random replicas outside `avoid`."""
        allowed = [replica for replica in self.replicas if replica.name not in avoid] or self.replicas
        chosen = min(self._rng.sample(allowed, min(2, len(allowed))), key=lambda replica: replica.length)
        now, job.replica = self._clock.now, chosen
        chosen.meter.begin(job.work)
        chosen.meter.asked(str(job.host.number), job.host.live, now)
        job.stream = chosen.watch.opened(now)
        self._load.arrived(now)
        if chosen.busy < self.profile.slots:
            self._begin(chosen, job)
        else:
            chosen.queue.append(job)
        return chosen

    def _begin(self, replica: _SlotReplica, job: _Job) -> None:
        now = self._clock.now
        replica.busy += 1
        job.work.queue_s = now - job.work.arrived_at
        self._load.began(job.work.queue_s, now)
        self._clock.after(replica.sampler.next_s(replica.busy), partial(self._first, replica, job))

    def _first(self, replica: _SlotReplica, job: _Job) -> None:
        if job.over:
            return
        now = self._clock.now
        job.work.first_at = now
        replica.watch.token(job.stream, now)
        job.host.stages.note(self.name, replica.report(job.host, now), now)
        job.first()
        self._clock.after(job.rest_s, partial(self.end, job))

    def end(self, job: _Job) -> None:
        """End or cancel a request."""
        replica, now = job.replica, self._clock.now
        if job.over or replica is None:
            return
        job.over = True
        replica.meter.end(job.work, now)
        replica.watch.closed(job.stream)
        if job in replica.queue:
            replica.queue.remove(job)
            return
        replica.busy -= 1
        self._load.ended(now - job.work.began_at, now)
        if replica.queue:
            self._begin(replica, replica.queue.popleft())

    def scale(self, *, measuring: bool) -> None:
        """Let the autoscaler decide, and start or stop replicas. The idlest ones stop, and finish their work."""
        now = self._clock.now
        counts = self._load.counts(now)
        busy, seconds = sum(replica.busy for replica in self.replicas), now - self._ticked
        self._ticked = now
        if measuring:
            self.busy_s += busy * seconds
            self.slot_s += len(self.replicas) * self.profile.slots * seconds
        self.replicas += [self._new() for _ in range(self.controller.started(now))]
        signals = {
            ARRIVALS_PER_S: [self._load.arrivals_per_s(now)],
            BEGAN: [float(counts.began)],
            LATE: [float(counts.late)],
            ENDED: [float(counts.ended)],
            SERVICE_S: [counts.service_s],
        }
        ongoing = float(sum(replica.length for replica in self.replicas))
        for _ in range(self.controller.tick(signals, ongoing, now)):
            self.replicas.remove(min(self.replicas, key=lambda replica: replica.length))


def _with_least_replicas(settings: Settings, least: dict[str, int]) -> Settings:
    """Return the settings with this `min_replicas` of each deployment."""
    changed = {}
    for name, number in least.items():
        section = getattr(settings, name)
        scaling = section.autoscaling.model_copy(update={"min_replicas": number})
        changed[name] = section.model_copy(update={"autoscaling": scaling})
    return settings.model_copy(update=changed)


class _Host:
    """Admission, hedging and circuit breakers of one host."""

    def __init__(self, number: int, settings: Settings, slots: dict[str, int]) -> None:
        self.number, self.live = number, 0
        self.places = Admission(settings.host.max_sessions, 0.1)
        self.stages = open_admission(settings, slots, phase=(number * 0.618) % 1)
        self.policy = HedgePolicy(settings.hedging)
        self.breaker = CircuitBreaker(settings.breaker)


class SessionsSimulation:
    """A cluster and its callers. Call `run`.

    Attributes:
        plan: The cluster.
        outcome: What has happened.
        stages: The stages by name.
        hosts: The hosts.
        hosts_controller: The autoscaler of the hosts.
    """

    def __init__(self, plan: ClusterPlan, callers: int, seed: int = 1) -> None:
        self.plan, self._callers = plan, callers
        self._rng, self._clock = random.Random(seed), EventQueue()
        self.outcome = SessionsOutcome()
        self._measuring = False
        self._waiting = 0
        self._calls = RecentLoad(20.0, 0.0)
        self.stages = {
            name: _Stage(
                name,
                PROFILES[f"nvidia-h100-{name}"],
                self._clock,
                self._rng,
                most=most,
                target=plan.targets[name],
                first=most if plan.warm else min(2, most),
            )
            for name, most in plan.most.items()
        }
        self._slots = {name: stage.profile.slots for name, stage in self.stages.items()}
        host = plan.settings.host
        most = math.floor(plan.nodes * plan.cores * NODE_LOAD / (HOST_CORES + host.max_sessions * SESSION_CORES))
        target = host.autoscaling.target_ongoing_requests
        scaling = Autoscaling(min_replicas=6, max_replicas=most, target_ongoing_requests=target)
        first = max(6, math.ceil(callers * 1.1 / target)) if plan.warm else 6
        policy = HostPolicy(target, host.max_sessions, scaling.headroom, start_s=15.0, lag_limit_s=0.05)
        self.hosts_controller = SimulatedController(policy, scaling, start_s=15.0, running=first, planned=first)
        begun = {name: len(stage.replicas) for name, stage in self.stages.items()} | {"host": first}
        self._settings = _with_least_replicas(plan.settings, begun)
        self.hosts = [_Host(number, self._settings, self._slots) for number in range(first)]

    def run(self, duration_s: float, measured_s: float) -> SessionsOutcome:
        """Simulate, and measure the last `measured_s` seconds of `duration_s`."""
        for number in range(self._callers):
            self._clock.after(RAMP_S * number / self._callers, self._call)
        self._clock.after(DECIDE_S, self._decide)
        self._clock.run(duration_s - measured_s)
        self._measuring = True
        self._clock.run(duration_s)
        out = self.outcome
        out.admitted, out.waiting = sum(host.live for host in self.hosts), self._waiting
        out.utilisation = {name: stage.busy_s / max(1e-9, stage.slot_s) for name, stage in self.stages.items()}
        out.replicas = {name: len(stage.replicas) for name, stage in self.stages.items()} | {"host": len(self.hosts)}
        out.host_cores = len(self.hosts) * HOST_CORES + out.admitted * SESSION_CORES
        return out

    def _decide(self) -> None:
        now = self._clock.now
        for stage in self.stages.values():
            stage.scale(measuring=self._measuring)
        for _ in range(self.hosts_controller.started(now)):
            self.hosts.append(_Host(len(self.hosts), self._settings, self._slots))
        live = float(sum(host.live for host in self.hosts))
        signals = {SESSIONS: [live], ARRIVALS_PER_S: [self._calls.arrivals_per_s(now)], LOOP_LAG_S: [0.0]}
        self.hosts_controller.tick(signals, live, now)  # sessions do not end, so no host stops
        self._clock.after(DECIDE_S, self._decide)

    def _call(self, *, again: bool = False) -> None:
        """Ask the emptiest host for a place, then two others. If all refuse, ask again later."""
        now = self._clock.now
        self._calls.arrived(now)
        self._waiting -= again
        chosen = min(self._rng.sample(self.hosts, min(8, len(self.hosts))), key=lambda host: host.live)
        for host in (chosen, *self._rng.sample(self.hosts, 2)):
            full = host.places.refusal(host.live)
            refused = None if full else host.stages.refusal(now)
            if not full and not refused:
                host.live += 1
                host.stages.entered(now)
                self._speak(host)
                return
        self.outcome.refusals[full.value if full else refused.limit.value if refused else ""] += 1
        self._waiting += 1
        wait_s = refused.retry_after_s if refused else self.plan.settings.host.retry_after_s
        self._clock.after(wait_s * self._rng.uniform(1.0, 1.5), partial(self._call, again=True))

    def _speak(self, host: _Host) -> None:
        pause_s = self._rng.uniform(*PAUSE_S) + self._rng.uniform(*SPEECH_S)
        self._clock.after(pause_s, partial(self._turn, host))

    def _turn(self, host: _Host) -> None:
        began = self._clock.now
        voiced = partial(self._voiced, host, began)
        told = partial(self._send, "tts", host, VOICE_REST_S, voiced)
        self._send("stt", host, 0.0, lambda: _HedgedTurn(self, host, told).start())

    def _send(self, stage: str, host: _Host, rest_s: float, first: Callable[[], None]) -> None:
        self.stages[stage].send(_Job(Work(self._clock.now), host, rest_s, first))

    def _voiced(self, host: _Host, began: float) -> None:
        now = self._clock.now
        host.stages.turn(now - began, now)
        if self._measuring:
            self.outcome.turns_s.append(now - began)
        self._clock.after(self._rng.uniform(*REPLY_S), partial(self._speak, host))

    @property
    def clock(self) -> EventQueue:
        """The clock of the simulation."""
        return self._clock

    @property
    def measuring(self) -> bool:
        """True in the measured part."""
        return self._measuring


class _HedgedTurn:
    """The race of one request to the language model."""

    def __init__(self, world: SessionsSimulation, host: _Host, told: Callable[[], None]) -> None:
        self._world, self._host, self._told = world, host, told
        self._race, self._jobs = Race(), list[_Job]()
        self._breaker_s = world.plan.settings.breaker.silence_ms / 1000

    def start(self) -> None:
        """Send the first attempt."""
        world, host = self._world, self._host
        host.policy.on_primary(world.clock.now)
        world.outcome.requests += world.measuring
        self._start()
        self._event(PrimarySent())
        delay_s = host.policy.delay_s(world.clock.now)
        if delay_s < math.inf:
            world.clock.after(delay_s, lambda: self._event(HedgeDue()))

    def _start(self) -> None:
        number, world = len(self._jobs), self._world
        rest_s = TOKENS / world.stages["llm"].profile.tokens_per_s
        job = _Job(Work(world.clock.now), self._host, rest_s, lambda: self._event(FirstToken(number)))
        self._jobs.append(job)
        used = frozenset(other.replica.name for other in self._jobs if other.replica) | self._host.breaker.avoid
        world.stages["llm"].send(job, used)
        world.clock.after(self._breaker_s + 0.05, lambda: self._check(number))

    def _check(self, number: int) -> None:
        """React to an attempt without a token: another attempt within the budget, and the replica's own report."""
        job, host, now = self._jobs[number], self._host, self._world.clock.now
        if job.over or job.work.first_at is not None or job.replica is None:
            return
        idle_s = max(self._breaker_s, 3 * host.policy.usual_s(now))
        if host.breaker.suspects({job.replica.name: job.work.arrived_at}, idle_s, now):
            self._event(ReplicaSilent(number))
            report = job.replica.watch.report(idle_s, now)
            self._world.outcome.opened += host.breaker.reported(job.replica.name, report, idle_s, now)

    def _event(self, event: RaceEvent) -> None:
        host, world, now = self._host, self._world, self._world.clock.now
        if isinstance(event, FirstToken) and (served := self._jobs[event.attempt].replica):
            host.breaker.heard(served.name, now)
        self._race, commands = step(self._race, event, now, host.policy.spend)
        for command in commands:
            match command:
                case StartHedge():
                    world.outcome.extra += world.measuring
                    self._start()
                case UseAttempt(_, ttft_s):
                    host.policy.observe_ttft(ttft_s, now)
                    self._told()
                case CancelAttempt(number, waited_s):
                    host.policy.observe_ttft(waited_s, now)
                    world.stages["llm"].end(self._jobs[number])


HEADER = (
    "| callers | admitted | refused most by | p50 ms | p95 ms | STT | LLM | TTS | cards | hosts | host cores | hedges "
    "| circuits |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)


def row(plan: ClusterPlan, callers: int, duration_s: float = 240.0, measured_s: float = 40.0) -> str:
    """Simulate so many callers, and return the line of the table."""
    out = SessionsSimulation(plan, callers).run(duration_s, measured_s)
    cards = sum(out.replicas[name] for name in ("stt", "llm", "tts"))
    most = out.refusals.most_common(1)[0][0] if out.waiting else ""
    shares = " | ".join(f"{out.utilisation[name]:.0%} of {out.replicas[name]}" for name in ("stt", "llm", "tts"))
    return (
        f"| {callers:,} | {out.admitted:,} | {most} | {out.quantile_ms(0.5):.0f} | {out.quantile_ms(0.95):.0f} "
        f"| {shares} | {cards} | {out.replicas['host']} | {out.host_cores:.0f} "
        f"| {out.extra / max(1, out.requests):.1%} | {out.opened} |"
    )


def report(callers: tuple[int, ...] = (1000, 5000, 10_000), *, warm: bool = True) -> Iterator[str]:
    """Yield the lines of the table for these numbers of callers on 20 nodes. `warm` is as in `ClusterPlan`."""
    yield from HEADER
    for number in callers:
        yield row(ClusterPlan(warm=warm), number)
