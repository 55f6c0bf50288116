"""Asking the language model, hedged: the race's decisions are `rejoinder.core.resilience.hedging`, this carries them
out.

Each attempt is a task that reads one replica's stream into a queue of its own. The first token picks the winner; the
losers are cancelled and their ends awaited elsewhere, within a bound, so that a loser that will not stop delays no
caller. When the winner itself breaks, the answer is asked for again behind what was already received, on another
replica: nothing is spoken twice.
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
# A model is never this far ahead of its reader; the bound only stops a stream that ignores backpressure.
DELTA_QUEUE = 1024


@dataclass(slots=True)
class GenerationStats:
    """What is known of one reply's generation; filled while it runs."""

    hedged: bool = False
    opened: bool = False
    total_ms: float | None = None
    usage: LlmUsage | None = None
    finish: str | None = None
    # What the answer cache said; None if it was not asked. `question`: the answer to it may be kept.
    cache: str | None = None
    question: CacheQuestion | None = None


class _Attempt:
    """One stream of one replica. `task` ends when the stream does; cancelling it cancels the request."""

    def __init__(self, number: int, hedger: Hedger, report: Callable[[RaceEvent], None], limit_s: float) -> None:
        """`limit_s` bounds the wait for each token."""
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
        """Who serves it, or did."""
        return self._replica or (self._stream.replica if self._stream else "")

    async def run(self, request: LlmRequest, avoid: frozenset[str], strict: bool) -> None:
        """Read the stream to its end; a failure is the queue's last entry."""
        self._hedger.replica_health.add(self)
        try:
            with contained("llm", self._hedger.metrics) as port:
                await self._run(request, avoid, strict)
            if port.broke:
                await self._fail(BackendError("the language model port broke.", stage="llm", replica=self.replica))
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
                    self._replica = stream.replica  # once it is closed it may not know any more
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
        raise BackendError("the stream ended before the answer did.", stage="llm", replica=stream.replica)

    async def _fail(self, fault: Fault) -> None:
        if isinstance(fault, BackendError):
            self._replica = fault.replica or self._replica
            self._hedger.replica_health.failed(self.replica)
        self.fault = fault
        await self.deltas.put(fault)
        if not self._has_first_token:
            self._report(AttemptFailed(self.number))

    def abandon(self) -> None:
        """Its replica has fallen silent: another is asked beside it, or goes on with what it has begun to say."""
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
    """One for all conversations of a host: they share the delay's samples and the budget. `run` for the host's
    life.
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
        """`backup`: another backend, for every second attempt."""
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
        """Own the attempts' tasks until cancelled; cancelling stops them all."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._running.set()
            await self.replica_health.run(group)

    async def stream(
        self, request: LlmRequest, failures: StageFailures, stats: GenerationStats, give_up_s: float
    ) -> AsyncGenerator[TokenDelta, None]:
        """The answer's deltas; raises BackendError when no replica answered for `give_up_s`. Close it to stop."""
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
        """Who serves this attempt: hedges and retries go to the other backend, if there is one.

        A request for the small model counts from one: its first attempt goes there.
        """
        return self._backup if self._backup and number % 2 else self._llm

    async def start(self, attempt: _Attempt, request: LlmRequest, avoid: frozenset[str], strict: bool) -> None:
        """Start an attempt's task."""
        await self._running.wait()
        assert self._group is not None
        attempt.task = self._group.create_task(attempt.run(request, avoid, strict))

    def retire(self, attempt: _Attempt) -> None:
        """Cancel an attempt and see to its end, off the caller's path; a second time changes nothing."""
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
        """Whether this hedge would only wait where it goes."""
        vetoed = self.policy.vetoed(self.backend(number).queue(avoid))
        if vetoed:
            self.metrics.hedge("vetoed")
        return vetoed

    def spend(self, now: float) -> bool:
        """Pay for a further attempt from the budget that all conversations share."""
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
        """Run the race, then yield the winner's deltas; raises the last failure if every attempt failed."""
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
                # The retry may have to wait for a replacement: the listener must not wait for that in silence.
                self._failures.failed("llm", fault)

    async def _next(self) -> RaceEvent:
        """The next thing that happens; a hedge that is vetoed does not, and is due again after its delay."""
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
                assert isinstance(fault, BackendError | Overloaded)  # a failed attempt's queue ends with its fault
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
        """Replicas that a further attempt does not go to."""
        return (
            self._avoid
            | {other.replica for other in self._attempts if other.replica}
            | self._hedger.replica_health.avoid
        )

    def _arm(self) -> None:
        """Have a hedge fall due after its delay from now."""
        if self._timer:
            self._timer.cancel()
        delay_s = self._hedger.policy.delay_s(self._hedger.clock(), self._tokens)
        if delay_s < float("inf"):
            self._hedger.metrics.hedge_delay(delay_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._events.put_nowait, HedgeDue())
