"""Hedged requests to the language model: `rejoinder.core.resilience.hedging` decides, this carries it out.

Each attempt is a task that reads one replica's stream into its own queue. The first token picks the winner. The losers
are cancelled, and their ends are awaited by another task, within a bound, so a loser that does not stop delays no
caller. When the winner itself fails, another replica continues the answer after the text that was already received, so
nothing is spoken twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from actors.stages.ports import LlmPort, LlmRequest, LlmStream, LlmUsage, Metrics, TokenDelta
from actors.stages.replica_health import ReplicaHealth
from actors.stages.retry import ItemWait, StageFailures, attempts, contained, idle_timeout
from rejoinder.core.errors import BackendError, Overloaded, StageTimeout
from rejoinder.core.reply.answer_cache import CacheQuestion
from rejoinder.core.resilience.hedging import (
    AttemptFailed,
    CancelAttempt,
    FirstToken,
    GiveUp,
    HedgeDue,
    HedgePolicy,
    PrimarySent,
    Race,
    RaceCommand,
    RaceEvent,
    RacePhase,
    ReplicaSilent,
    StartHedge,
    UseAttempt,
    prompt_tokens,
    step,
)
from rejoinder.core.settings.settings import Settings

logger = logging.getLogger(__name__)

Fault = BackendError | Overloaded
# Deltas in an attempt's queue. A reader is never this far behind; the bound stops a stream that ignores backpressure.
DELTA_QUEUE = 1024


@dataclass(slots=True)
class GenerationStats:
    """What is known about one reply's generation; filled while it runs.

    Attributes:
        hedged: A hedge was sent.
        opened: The reply began with a held opening.
        total_ms: Time to the last delta.
        usage: Token counts; None until the end.
        finish: "stop" or "length"; None until the end.
        cache: Outcome of the answer cache lookup; None if there was none.
        question: The question, if its answer may be stored.
    """

    hedged: bool = False
    opened: bool = False
    total_ms: float | None = None
    usage: LlmUsage | None = None
    finish: str | None = None
    cache: str | None = None
    question: CacheQuestion | None = None


class _Attempt:
    """One stream of one replica. `task` ends when the stream does; cancelling it cancels the request."""

    def __init__(self, number: int, hedger: Hedger, report: Callable[[RaceEvent], None], limit_s: float) -> None:
        """Create attempt `number` (0 is the primary); `limit_s` bounds the wait for each token."""
        self.number = number
        self.hedge = False
        self.fault: Fault | None = None
        self.deltas: asyncio.Queue[TokenDelta | Fault] = asyncio.Queue(DELTA_QUEUE)
        self.task: asyncio.Task[None] | None = None
        self._hedger = hedger
        self._report = report
        self._limit_s = limit_s
        self._stream: LlmStream | None = None
        self._replica = ""
        self._has_first_token = False
        self.waiting_since = hedger.clock()

    @property
    def replica(self) -> str:
        """Id of the replica that serves or served it; "" while none is chosen."""
        return self._replica or (self._stream.replica if self._stream else "")

    async def run(self, request: LlmRequest, avoid: frozenset[str], strict: bool) -> None:
        """Read the stream to its end. A failure becomes the queue's last entry.

        Args:
            request: What to ask for.
            avoid: Replicas not to use.
            strict: Wait for a replica outside `avoid`.
        """
        self._hedger.replica_health.add(self)
        try:
            with contained("llm", self._hedger.metrics) as port:
                await self._run(request, avoid, strict)
            if port.broke:
                await self._fail(BackendError("unexpected exception.", stage="llm", replica=self.replica))
        finally:
            self._hedger.replica_health.remove(self)

    async def _run(self, request: LlmRequest, avoid: frozenset[str], strict: bool) -> None:
        try:
            async with (
                idle_timeout(self._limit_s) as waiting,
                self._hedger.backend(self.number + request.small).open(request, avoid=avoid, strict=strict) as stream,
            ):
                self._stream = stream
                try:
                    await self._read(stream, waiting)
                finally:
                    self._replica = stream.replica  # a closed stream may have forgotten it
        except TimeoutError:
            await self._fail(StageTimeout(f"no token for {self._limit_s:g} s.", stage="llm", replica=self.replica))
        except (BackendError, Overloaded) as fault:
            await self._fail(fault)

    async def _read(self, stream: LlmStream, waiting: ItemWait) -> None:
        async for delta in stream:
            waiting.pause()
            self._hedger.replica_health.token_received(stream.replica)
            await self.deltas.put(delta)
            self.waiting_since = self._hedger.clock()
            if not self._has_first_token:
                self._has_first_token = True
                self._report(FirstToken(self.number))
            if delta.finish:
                return
            waiting.restart()
        raise BackendError("the stream ended without a finish reason.", stage="llm", replica=stream.replica)

    async def _fail(self, fault: Fault) -> None:
        if isinstance(fault, BackendError):
            self._replica = fault.replica or self._replica
            self._hedger.replica_health.failed(self.replica)
        self.fault = fault
        await self.deltas.put(fault)
        if not self._has_first_token:
            self._report(AttemptFailed(self.number))

    def abandon(self) -> None:
        """Give the attempt's replica up, because it has fallen silent.

        Before the first token the race starts another attempt next to it. After the first token the answer fails over.
        """
        self._hedger.replica_health.remove(self)
        if not self._has_first_token:
            self._report(ReplicaSilent(self.number))
            return
        fault = BackendError("the replica fell silent.", stage="llm", replica=self.replica)
        if not self.deltas.full():
            self.deltas.put_nowait(fault)
            self.fault = fault
        self._hedger.retire(self)


class Hedger:
    """Client of the language model for all conversations of a host.

    They share the latency samples and the hedging budget. `run` must run for the host's life.
    """

    def __init__(
        self,
        llm: LlmPort,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        backup: LlmPort | None = None,
    ) -> None:
        """Create the client.

        Args:
            llm: The primary backend.
            settings: The sections `hedging`, `breaker` and `llm` are used.
            metrics: Receiver of measurements.
            clock: Monotonic seconds.
            backup: Another backend, which serves every second attempt.
        """
        self._llm = llm
        self._backup = backup
        self._settings = settings.hedging
        self.policy = HedgePolicy(settings.hedging)
        self.replica_health = ReplicaHealth(
            llm, settings=settings.breaker, policy=self.policy, metrics=metrics, clock=clock
        )
        self.metrics = metrics
        self.clock = clock
        self.timeout_s = settings.llm.call_timeout_s
        self._group: asyncio.TaskGroup | None = None
        self._running = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Own the attempts' tasks until cancelled. Cancelling stops them all."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._running.set()
            await self.replica_health.run(group)

    async def stream(
        self, request: LlmRequest, failures: StageFailures, stats: GenerationStats, give_up_s: float
    ) -> AsyncGenerator[TokenDelta, None]:
        """Yield the answer's deltas.

        Closing the generator, or cancelling the task that reads it, stops every attempt.

        Args:
            request: What to ask for.
            failures: Records every failure, and the recovery.
            stats: Filled while the generation runs.
            give_up_s: Seconds of failures without a delta in between, after which the next failure is final.

        Raises:
            BackendError: No replica answered for `give_up_s`.
        """
        began = self.clock()
        self.policy.on_primary(began)
        async for attempt in attempts(
            "llm",
            partial(failures.failed, "llm"),
            limit_s=self.timeout_s,
            give_up_s=give_up_s,
            covered=(BackendError, Overloaded),
            overload_clears_avoid=True,
        ):
            race = _Racing(
                self, request=request, avoid=attempt.avoid, stats=stats, failures=failures, limit_s=attempt.limit_s
            )
            with attempt:
                async with aclosing(race.deltas()) as deltas:
                    async for delta in deltas:
                        failures.recovered("llm")
                        attempt.progressed()
                        request = replace(
                            request,
                            prefix=request.prefix + delta.text,
                            max_tokens=max(1, request.max_tokens - delta.tokens),
                        )
                        if delta.finish:
                            stats.finish, stats.usage = delta.finish, delta.usage
                            stats.total_ms = round((self.clock() - began) * 1000, 1)
                        yield delta

    def backend(self, number: int) -> LlmPort:
        """Return the backend of an attempt: hedges and retries alternate between the two, if there are two.

        A request for the small model counts from 1, so its first attempt goes to the backup.
        """
        return self._backup if self._backup and number % 2 else self._llm

    async def start(self, attempt: _Attempt, request: LlmRequest, avoid: frozenset[str], strict: bool) -> None:
        """Start an attempt's task; waits until `run` runs."""
        await self._running.wait()
        assert self._group is not None
        attempt.task = self._group.create_task(attempt.run(request, avoid, strict))

    def retire(self, attempt: _Attempt) -> None:
        """Cancel an attempt. Another task awaits its end and reports one later than `cancel_timeout_s`. Idempotent."""
        task = attempt.task
        if task is None or task.done() or task in self._retiring or self._group is None:
            return
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        task.cancel()
        self._group.create_task(self._await_end(attempt, task))

    async def _await_end(self, attempt: _Attempt, task: asyncio.Task[None]) -> None:
        _, late = await asyncio.wait({task}, timeout=self._settings.cancel_timeout_s)
        if late:
            self.metrics.error("backend", "llm_cancel")
            logger.warning("replica %s did not stop within %s s", attempt.replica, self._settings.cancel_timeout_s)

    def vetoed(self, number: int, avoid: frozenset[str]) -> bool:
        """Return True, and count it, if every replica that the hedge could use has a long queue (`veto_queue`)."""
        vetoed = self.policy.vetoed(self.backend(number).queue(avoid))
        if vetoed:
            self.metrics.hedge("vetoed")
        return vetoed

    def spend(self, now: float) -> bool:
        """Return True if the budget of all conversations pays for another attempt, and take it from the budget."""
        granted = self.policy.try_spend(now)
        if not granted:
            self.metrics.hedge("budget_exhausted")
        return granted


class _Racing:
    """One race to the first token, then the winner's deltas."""

    def __init__(
        self,
        hedger: Hedger,
        request: LlmRequest,
        avoid: frozenset[str],
        stats: GenerationStats,
        *,
        failures: StageFailures,
        limit_s: float,
    ) -> None:
        self._hedger = hedger
        self._limit_s = limit_s
        self._failures = failures
        self._request = request
        self._tokens = prompt_tokens(sum(len(message.content) for message in request.messages))
        self._avoid = avoid
        self._stats = stats
        self._race = Race()
        self._attempts: list[_Attempt] = []
        self._events: asyncio.Queue[RaceEvent] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None

    async def deltas(self) -> AsyncGenerator[TokenDelta, None]:
        """Run the race, then yield the winner's deltas.

        Raises:
            BackendError, Overloaded: Every attempt failed (the last failure), or the winner failed.
        """
        try:
            winner = await self._winner()
            while True:
                delta = await winner.deltas.get()
                if isinstance(delta, BackendError | Overloaded):
                    raise delta
                yield delta
                if delta.finish:
                    return
        finally:
            if self._timer:
                self._timer.cancel()
            for attempt in self._attempts:
                self._hedger.retire(attempt)

    async def _winner(self) -> _Attempt:
        await self._start(0, strict=False)
        event: RaceEvent = PrimarySent()
        while True:
            self._race, commands = step(self._race, event, self._hedger.clock(), self._hedger.spend)
            for command in commands:
                await self._perform(command)
            if self._race.phase is RacePhase.WON:
                return self._attempts[self._race.running[0]]
            event = await self._next()
            if isinstance(event, AttemptFailed) and (fault := self._attempts[event.attempt].fault):
                # The retry may have to wait for a replacement replica. Record the failure so that the reply apologises.
                self._failures.failed("llm", fault)

    async def _next(self) -> RaceEvent:
        """Return the next event. A vetoed hedge is skipped; it falls due again after its delay."""
        while True:
            event = await self._events.get()
            number = len(self._attempts) + self._request.small
            if not isinstance(event, HedgeDue) or not self._hedger.vetoed(number, self._used):
                return event
            self._arm()

    async def _perform(self, command: RaceCommand) -> None:
        hedger, now = self._hedger, self._hedger.clock()
        match command:
            case StartHedge(number):
                hedge = len(self._race.running) > 1
                await self._start(number, strict=hedge)
                if hedge:
                    self._stats.hedged = True
                    self._attempts[number].hedge = True
                    hedger.metrics.hedge("sent")
            case UseAttempt(number, ttft_s):
                hedger.policy.observe_ttft(ttft_s, now, self._tokens)
                for attempt in self._attempts:
                    if attempt.hedge:
                        hedger.metrics.hedge("won" if attempt.number == number else "wasted")
            case CancelAttempt(number, waited_s):
                hedger.policy.observe_ttft(waited_s, now, self._tokens)
                hedger.retire(self._attempts[number])
            case GiveUp():
                fault = self._attempts[-1].deltas.get_nowait()
                assert isinstance(fault, BackendError | Overloaded)  # a failed attempt's queue holds only its fault
                raise fault

    async def _start(self, number: int, *, strict: bool) -> None:
        hedger = self._hedger
        attempt = _Attempt(number, hedger, self._events.put_nowait, self._limit_s)
        avoid = self._used
        self._attempts.append(attempt)
        await hedger.start(attempt, self._request, avoid, strict)
        self._arm()

    @property
    def _used(self) -> frozenset[str]:
        """Replicas that a further attempt does not use."""
        return (
            self._avoid
            | {other.replica for other in self._attempts if other.replica}
            | self._hedger.replica_health.avoid
        )

    def _arm(self) -> None:
        """Schedule a hedge after the policy's delay from now."""
        if self._timer:
            self._timer.cancel()
        delay_s = self._hedger.policy.delay_s(self._hedger.clock(), self._tokens)
        if delay_s < float("inf"):
            self._hedger.metrics.hedge_delay(delay_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._events.put_nowait, HedgeDue())
