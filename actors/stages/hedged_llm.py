"""Hedged requests to the language model. `rejoinder.core.resilience.hedging` decides; this module makes the requests.

A hedge is a second request for the same answer to another replica, sent if the first token is late. Each attempt is a
task that reads one replica's stream into its own queue. The attempt with the first token is used. The others are
cancelled, and a separate task waits for their ends, so an attempt that does not stop delays no caller. If the replica
of the used attempt fails, another replica continues the answer after the text that was already received, so nothing is
spoken twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from actors.stages.llm_backends import LlmBackends
from actors.stages.ports import LlmPort, LlmRequest, LlmStream, LlmUsage, Metrics, TokenDelta
from actors.stages.replica_health import ReplicaHealth
from actors.stages.retry import Attempt, Backoff, ItemWait, StageFailures, attempts, contained, idle_timeout
from rejoinder.core.errors import BackendError, BadResponse, Overloaded, RejoinderError, StageTimeout
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
from rejoinder.core.resilience.retry_limits import RetryBudget
from rejoinder.core.settings.settings import Settings

logger = logging.getLogger(__name__)

# Maximum number of deltas in an attempt's queue. No reader is this slow: the limit stops a stream that never ends.
DELTA_QUEUE = 1024
# Longest pause in seconds between two retries. The caller's budget (`RetryBudget`) is usually the tighter limit.
LONGEST_RETRY_PAUSE_S = 2.0


@dataclass(slots=True)
class GenerationStats:
    """Facts about one reply's generation, filled in while it runs.

    Attributes:
        hedged: True if a hedge was sent.
        opened: True if the reply began with an opening from a prepared clip.
        total_ms: Time from the request to the last delta, in ms; None until the end.
        usage: Token counts; None until the end.
        finish: "stop" or "length" (see `TokenDelta`); None until the end.
        cache: Outcome of the answer cache lookup; None if there was no lookup.
        question: The question, if the answer may be stored in the answer cache; otherwise None.
    """

    hedged: bool = False
    opened: bool = False
    total_ms: float | None = None
    usage: LlmUsage | None = None
    finish: str | None = None
    cache: str | None = None
    question: CacheQuestion | None = None


class _Attempt:
    """One request to one replica. `task` reads its stream to the end; cancelling the task cancels the request."""

    def __init__(
        self, number: int, hedger: Hedger, report: Callable[[RaceEvent], None], limit_s: float, *, backend: int
    ) -> None:
        """Create attempt `number` (0 is the first).

        Args:
            number: Position among the attempts at one answer.
            backend: The backend to ask: 0 for the primary, 1 for the backup.
            hedger: The client that the attempt belongs to.
            report: Called with the attempt's events: first token, failure, silent replica.
            limit_s: Maximum wait for each token, in seconds.
        """
        self.number = number
        self.backend = backend
        self.hedge = False
        self.fault: RejoinderError | None = None
        self.deltas: asyncio.Queue[TokenDelta | RejoinderError] = asyncio.Queue(DELTA_QUEUE)
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
        """Id of the replica that serves or has served the request; "" while no replica is chosen."""
        return self._replica or (self._stream.replica if self._stream else "")

    async def run(self, request: LlmRequest, avoid: frozenset[str], strict: bool) -> None:
        """Read the stream to its end. A failure becomes the last entry of the queue `deltas`.

        Args:
            request: The request.
            avoid: Ids of replicas that should not be used.
            strict: True to wait for a replica outside `avoid`, as `LlmPort.open` describes.
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
                self._hedger.backends.port(self.backend).open(request, avoid=avoid, strict=strict) as stream,
            ):
                self._stream = stream
                try:
                    await self._read(stream, waiting)
                finally:
                    self._replica = stream.replica  # kept here, because a closed stream may no longer know its replica
        except TimeoutError:
            await self._fail(StageTimeout(f"no token for {self._limit_s:g} s.", stage="llm", replica=self.replica))
        except RejoinderError as fault:
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

    async def _fail(self, fault: RejoinderError) -> None:
        if isinstance(fault, BackendError):
            self._replica = fault.replica or self._replica
            self._hedger.replica_health.failed(self.replica, self.port)
        self._hedger.backends.failed(self.backend, fault)
        self.fault = fault
        await self.deltas.put(fault)
        if not self._has_first_token:
            self._report(AttemptFailed(self.number))

    @property
    def port(self) -> LlmPort:
        """The port of the attempt's backend."""
        return self._hedger.backends.port(self.backend)

    def stalled(self) -> None:
        """Use another replica too, if the hedging budget allows it: this one is late, but perhaps only for this stream.

        After the first token, another replica continues the answer.
        """
        if not self._has_first_token:
            self._report(ReplicaSilent(self.number))
        elif self._hedger.policy.affordable:
            self.abandon()

    def abandon(self) -> None:
        """Stop using the attempt's replica, because it has stopped sending tokens.

        Before the first token, another attempt is started and this one continues. After the first token, this attempt
        fails and another replica continues the answer.
        """
        self._hedger.replica_health.remove(self)
        if not self._has_first_token:
            self._report(ReplicaSilent(self.number, confirmed=True))
            return
        fault = BackendError("the replica fell silent.", stage="llm", replica=self.replica)
        if not self.deltas.full():
            self.deltas.put_nowait(fault)
            self.fault = fault
        self._hedger.retire(self)


class _BudgetedBackoff(Backoff):
    """Growing pauses between the retries of one conversation, which also keep within its budget of retries."""

    def __init__(self, budget: RetryBudget, caller: str, clock: Callable[[], float]) -> None:
        super().__init__(longest_s=LONGEST_RETRY_PAUSE_S)
        self._budget = budget
        self._caller = caller
        self._clock = clock

    def next_s(self) -> float:
        """Charge the budget with one retry, and return the pause before it in seconds."""
        return max(super().next_s(), self._budget.reserve_s(self._caller, self._clock()))


class Hedger:
    """Client of the language model for all conversations of a host.

    The conversations share the latency samples and the hedging budget. Keep `run` running.

    Attributes:
        policy: Delay and budget of hedges.
        replica_health: Circuit breaker of the replicas.
        budget: Retries that each conversation may send.
        backends: The primary and the backup.
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
            clock: Returns the monotonic time, in seconds.
            backup: Another backend, which serves every second attempt; None if there is none.
        """
        self.backends = LlmBackends(llm, backup, clock)
        self._settings = settings.hedging
        self.policy = HedgePolicy(settings.hedging)
        remote_s = settings.llm.call_timeout_s if settings.llm.engine == "openai_api" else 0.0
        self.replica_health = ReplicaHealth(settings.breaker, self.policy, metrics, clock=clock, min_silence_s=remote_s)
        self.metrics = metrics
        self.clock = clock
        self.timeout_s = settings.llm.call_timeout_s
        self.budget = RetryBudget()
        self._group: asyncio.TaskGroup | None = None
        self._running = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run the tasks of all attempts, and the health checks of the replicas, until cancelled."""
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
            request: The request.
            failures: Records every failure, and the recovery.
            stats: Filled in while the generation runs.
            give_up_s: Seconds of failures without a delta, after which the next failure is final.

        Raises:
            BackendError: All attempts failed for `give_up_s` seconds, the backends take no request for longer than
                that, or a server's response is not that of a language model.
            RejoinderError: Any other fault of the request or the configuration, which no retry would repair.
        """
        began = self.clock()
        self.policy.on_primary(began)
        given, rounds = request.prefix, 0
        async for attempt in attempts(
            "llm",
            partial(failures.failed, "llm"),
            limit_s=self.timeout_s,
            give_up_s=give_up_s,
            pause=_BudgetedBackoff(self.budget, request.session, self.clock),
            covered=(BackendError, Overloaded),
            final=(BadResponse,),
            hold=partial(self._hold_s, request),
            overload_clears_avoid=True,
        ):
            if rounds:
                self.policy.spend(must=True)
            rounds += 1
            race = _Racing(self, request=request, attempt=attempt, stats=stats, failures=failures)
            with attempt:
                async with aclosing(race.deltas()) as deltas:
                    async for delta in deltas:
                        if delta.text or delta.finish:
                            failures.recovered("llm")
                            attempt.progressed()
                        if request.prefix == given and delta.continues is not None:
                            delta = replace(delta, continues=None)  # no text was received before, so none is replaced
                        request = replace(
                            request,
                            prefix=request.prefix[: delta.continues] + delta.text,
                            max_tokens=max(1, request.max_tokens - delta.tokens),
                        )
                        if delta.finish:
                            self.backends.answered()
                            stats.finish, stats.usage = delta.finish, delta.usage
                            stats.total_ms = round((self.clock() - began) * 1000, 1)
                        yield delta

    def _hold_s(self, request: LlmRequest) -> float:
        """Return the seconds for which no backend may get the request, because a server asked for a pause."""
        return self.backends.paused_s(self.backends.choose(0, small=request.small))

    async def start(self, attempt: _Attempt, request: LlmRequest, avoid: frozenset[str], strict: bool) -> None:
        """Start an attempt's task. Waits until `run` has started. `avoid` and `strict` as in `LlmPort.open`."""
        await self._running.wait()
        assert self._group is not None
        attempt.task = self._group.create_task(attempt.run(request, avoid, strict))

    def retire(self, attempt: _Attempt) -> None:
        """Cancel an attempt without waiting. An end later than `cancel_timeout_s` is logged and counted. Idempotent."""
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

    def vetoed(self, backend: int, avoid: frozenset[str]) -> bool:
        """Return True, and count a veto, if a hedge would wait for long queues (`veto_queue`) or a paused backend.

        Args:
            backend: The backend that the hedge would use.
            avoid: Ids of replicas that the hedge would not use.
        """
        vetoed = self.backends.paused_s(backend) > 0 or self.policy.vetoed(self.backends.port(backend).queue(avoid))
        if vetoed:
            self.metrics.hedge("vetoed")
        return vetoed

    def spend(self, *, must: bool = False) -> bool:
        """Charge the hedging budget for another attempt and return True if it is sent, as `HedgePolicy.spend`."""
        granted = self.policy.spend(must=must)
        if not granted:
            self.metrics.hedge("budget_exhausted")
        return granted


class _Racing:
    """The attempts at one answer: a race to the first token, then the deltas of the attempt that sent it."""

    def __init__(
        self,
        hedger: Hedger,
        request: LlmRequest,
        attempt: Attempt,
        stats: GenerationStats,
        *,
        failures: StageFailures,
    ) -> None:
        self._hedger = hedger
        self._limit_s = attempt.limit_s
        self._first_round = attempt.first
        self._failures = failures
        self._request = request
        self._tokens = prompt_tokens(sum(message.length for message in request.messages))
        self._avoid = attempt.avoid
        self._stats = stats
        self._race = Race()
        self._attempts: list[_Attempt] = []
        self._events: asyncio.Queue[RaceEvent] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None

    async def deltas(self) -> AsyncGenerator[TokenDelta, None]:
        """Run the race, then yield the deltas of the attempt with the first token (the winner).

        Raises:
            RejoinderError: Every attempt failed (then this is the last failure), or the winner failed.
        """
        try:
            winner = await self._winner()
            while True:
                delta = await winner.deltas.get()
                if isinstance(delta, RejoinderError):
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
                event = replace(event, retryable=self._may_retry(fault))
                if isinstance(fault, BackendError | Overloaded):
                    # A retry may have to wait for a replacement replica. The recorded failure makes the reply
                    # apologise.
                    self._failures.failed("llm", fault)

    def _may_retry(self, fault: RejoinderError) -> bool:
        """Return True if another attempt may follow a failed one without a pause.

        With a backup, the first failure may always be followed by an attempt at the other backend. Otherwise another
        replica may be tried if nothing has failed in an earlier race of this request, and the conversation's budget
        of retries allows it. A fault of the request, the configuration or a server that all replicas share is not
        retried at once.
        """
        if self._hedger.backends.has_backup and len(self._attempts) == 1:
            return True
        if not isinstance(fault, BackendError | Overloaded) or (isinstance(fault, Overloaded) and fault.shared):
            return False
        return self._first_round and self._hedger.budget.try_spend(self._request.session, self._hedger.clock())

    async def _next(self) -> RaceEvent:
        """Wait for the next event of the race and return it. A vetoed hedge is due again after the hedge delay."""
        while True:
            event = await self._events.get()
            backend = self._hedger.backends.choose(len(self._attempts), small=self._request.small)
            if not isinstance(event, HedgeDue) or not self._hedger.vetoed(backend, self._used):
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
                # The attempt failed before its first token, so its queue contains only the failure.
                assert isinstance(fault, RejoinderError)
                raise fault

    async def _start(self, number: int, *, strict: bool) -> None:
        hedger = self._hedger
        backend = hedger.backends.choose(number, small=self._request.small)
        attempt = _Attempt(number, hedger, self._events.put_nowait, self._limit_s, backend=backend)
        avoid = self._used
        self._attempts.append(attempt)
        await hedger.start(attempt, self._request, avoid, strict)
        self._arm()

    @property
    def _used(self) -> frozenset[str]:
        """Ids of the replicas that a further attempt should not use: already used ones, and those out of use."""
        return (
            self._avoid
            | {other.replica for other in self._attempts if other.replica}
            | self._hedger.replica_health.avoid
        )

    def _arm(self) -> None:
        """Schedule a hedge after the hedge delay, counted from now, and cancel the one scheduled before."""
        if self._timer:
            self._timer.cancel()
        delay_s = self._hedger.policy.delay_s(self._hedger.clock(), self._tokens)
        if delay_s < float("inf"):
            self._hedger.metrics.hedge_delay(delay_s)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._events.put_nowait, HedgeDue())
