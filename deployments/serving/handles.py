"""The stage ports (`actors.stages.ports`) over Ray Serve handles.

The casts from Ray's untyped results to our types are all in this module. Every call runs in a context that cancels it
on every exit: Serve does not cancel a call because its caller stops waiting. A stream requests its first item when it
is opened, because Serve ignores a cancellation that comes before the first request for an item if the router runs on
the caller's loop.

Failures become `BackendError` with the stage and the id of the replica that failed, and overload becomes `Overloaded`.
Other errors of our own (`RejoinderError`) that the replica raises pass unchanged.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import grpc
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from actors.stages.ports import (
    ANYWHERE,
    CachedAnswer,
    LlmRequest,
    LlmStream,
    SttJob,
    Transcript,
    TtsRequest,
    TurnVerdict,
    VadBatch,
    VadResult,
)
from actors.stages.silence import SilenceWatch
from deployments.serving.compat import cancel_request
from deployments.serving.load_exchange import NO_EXCHANGE, LoadExchange
from deployments.serving.placements import NoReplicaAvailable, ReplicaRoute, forget, placed, shortest_queue
from rejoinder.core.errors import BackendError, Overloaded, RejoinderError
from rejoinder.core.reply.answer_cache import CacheHit, CacheQuestion
from rejoinder.core.resilience.stream_report import StreamReport

_numbers = itertools.count(1)


def _new_id() -> str:
    """Return the id of a new call, which is unique in this process."""
    return f"{os.getpid()}-{next(_numbers)}"


@contextmanager
def _translated_errors(stage: str, route: ReplicaRoute) -> Iterator[None]:
    """Raise errors of Ray and Serve inside the `with` block as BackendError or Overloaded.

    A RejoinderError that the replica raised keeps its type. At the end, delete the record of which replica got the
    request of `route`. `stage` is the name for errors.
    """
    try:
        yield
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, RejoinderError):
            if isinstance(cause, BackendError):
                raise type(cause)(cause.message, cause.remedy, stage, placed(route.request_id)) from error
            raise cause from error
        raise BackendError(f"{stage} failed: {cause!r}", stage=stage, replica=placed(route.request_id)) from error
    except BackPressureError as error:
        raise Overloaded(f"{stage} is full.", resource=stage) from error
    except NoReplicaAvailable as error:
        raise BackendError(f"{stage}: {error}.", stage=stage) from error
    except (RayError, RayServeException, grpc.RpcError, RuntimeError, ConnectionError) as error:
        raise BackendError(
            f"{stage} lost its replica: {type(error).__name__}", stage=stage, replica=placed(route.request_id)
        ) from error
    finally:
        forget(route.request_id)


async def _call(
    stage: str,
    method: Any,
    payload: object,
    avoid: frozenset[str],
    *,
    only: str = "",
    exchange: LoadExchange = NO_EXCHANGE,
    watch: SilenceWatch | None = None,
) -> Any:
    """Call a method on a replica, the one with the id `only` or if possible one not in `avoid`, and return its result.

    Cancelling the call cancels the request in the replica.

    `method` is a method of a Serve handle, `payload` its argument, and `stage` the name for errors. `exchange` gets the
    replica's load. With `watch` the call fails if the replica is silent.
    """
    route = exchange.route(_new_id(), watch.avoid(avoid) if watch else avoid, only=only)
    with _translated_errors(stage, route):
        response = method.remote(payload, route)
        try:
            answer = watch.result(response, lambda: placed(route.request_id)) if watch else response
            return exchange.unwrap(stage, await answer)
        finally:
            cancel_request(response)


class _Stream:
    """Iterator over the items of a replica's stream. The first item is requested on construction."""

    def __init__(
        self,
        generator: Any,
        stage: str,
        route: ReplicaRoute,
        exchange: LoadExchange,
        *,
        watch: SilenceWatch | None = None,
    ) -> None:
        self._generator = generator
        self._watch = watch
        self._stage = stage
        self._route = route
        self._exchange = exchange
        self._first: asyncio.Future[Any] | None = asyncio.ensure_future(anext(generator))

    @property
    def replica(self) -> str:
        """The id of the replica that serves the stream, "" while no replica is chosen."""
        return placed(self._route.request_id)

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Any:
        with _translated_item_errors(self._stage, self._route):
            if self._first is not None:
                first, self._first = self._first, None
                return self._exchange.unwrap(self._stage, await self._watched(first))
            return await self._watched(anext(self._generator))

    def _watched(self, item: Awaitable[Any]) -> Awaitable[Any]:
        return self._watch.result(item, lambda: self.replica) if self._watch else item

    async def close(self) -> None:
        """Cancel the request in the replica. Do not wait until the replica has stopped."""
        cancel_request(self._generator)
        if self._first is not None:
            self._first.cancel()
            await asyncio.wait({self._first})
            if not self._first.cancelled():
                self._first.exception()


@contextmanager
def _translated_item_errors(stage: str, route: ReplicaRoute) -> Iterator[None]:
    """Raise errors of Ray and Serve inside the `with` block as BackendError or Overloaded, for one item of a stream.

    `stage` is the name for errors, and `route` identifies the request. The record of which replica got the
    request is kept, because the stream may have further items.
    """
    try:
        with _translated_errors(stage, ReplicaRoute(f"{route.request_id}/item")):
            yield
    except BackendError as error:
        error.replica = placed(route.request_id)
        raise


@asynccontextmanager
async def _open(
    stage: str,
    method: Any,
    payload: object,
    route: ReplicaRoute,
    *,
    exchange: LoadExchange,
    watch: SilenceWatch | None = None,
) -> AsyncIterator[_Stream]:
    """Call a streaming method and yield the iterator over its items. Leaving the context cancels the call.

    `method` is a method of a Serve handle, `payload` its argument, and `stage` the name for errors. `exchange` gets the
    replica's load. With `watch` the wait for an item fails if the replica is silent.
    """
    stream = _Stream(method.remote(payload, route), stage, route, exchange, watch=watch)
    try:
        yield stream
    finally:
        await stream.close()
        forget(route.request_id)


def _silence_watch(stage: str, handle: DeploymentHandle) -> SilenceWatch:
    """Return the watch that notices silent replicas of a stage."""

    async def ping(replica: str) -> None:
        await _call(stage, handle.ping, None, ANYWHERE, only=replica)

    return SilenceWatch(stage, ping)


class StageProbe:
    """Asks a stage for a sign of life. The next probe avoids a replica that has just failed, if there is another."""

    def __init__(self, stage: str, *handles: DeploymentHandle) -> None:
        """Create a probe.

        Args:
            stage: Name of the stage.
            handles: Handles of the deployments that can do its work. It is alive if one of them answers.
        """
        self._stage = stage
        self._pings = [handle.ping for handle in handles]
        self._avoid = ANYWHERE

    async def __call__(self) -> None:
        """Return when a replica has answered.

        Raises:
            BackendError: No replica answered.
        """
        for number, ping in enumerate(self._pings, 1):
            try:
                await _call(self._stage, ping, None, self._avoid)
            except BackendError as fault:
                self._avoid = frozenset({fault.replica})
                if number == len(self._pings):
                    raise
            else:
                return


class VadHandle:
    """`VadPort` over the Ray Serve handle of the Vad deployment."""

    def __init__(self, handle: DeploymentHandle, exchange: LoadExchange = NO_EXCHANGE) -> None:
        self._step = handle.step
        self._exchange = exchange

    async def step(self, batch: VadBatch, *, avoid: frozenset[str] = ANYWHERE) -> VadResult:
        """Return the speech probabilities and the next states of a batch of windows.

        The batch runs on a replica not in `avoid`, if there is one. See `VadPort.step`.
        """
        return cast(VadResult, await _call("vad", self._step, batch, avoid, exchange=self._exchange))


class TurnDetectorHandle:
    """`TurnDetectorPort` over the Ray Serve handle of the TurnDetector deployment."""

    def __init__(self, handle: DeploymentHandle, exchange: LoadExchange = NO_EXCHANGE) -> None:
        self._predict = handle.predict
        self._exchange = exchange

    async def predict(self, pcm: bytes, *, avoid: frozenset[str] = ANYWHERE) -> TurnVerdict:
        """Return the probability that the turn is complete, if possible from a replica not in `avoid`.

        See `TurnDetectorPort.predict`.
        """
        return cast(TurnVerdict, await _call("turn_detector", self._predict, pcm, avoid, exchange=self._exchange))


class SttHandle:
    """`SttPort` over the Ray Serve handle of the Stt deployment."""

    def __init__(self, handle: DeploymentHandle, exchange: LoadExchange = NO_EXCHANGE) -> None:
        self._transcribe = handle.transcribe
        self._exchange = exchange
        self._watch = _silence_watch("stt", handle)

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        """Return the transcript of one utterance, if possible from a replica not in `avoid`.

        Cancelling this call removes the job from the replica's queue. It fails if the replica is silent (see
        `actors.stages.silence`). See `SttPort.transcribe`.
        """
        call = _call("stt", self._transcribe, job, avoid, exchange=self._exchange, watch=self._watch)
        return cast(Transcript, await call)


class LlmHandle:
    """`LlmPort` over the Ray Serve handle of the Llm or LlmBackup deployment."""

    def __init__(self, handle: DeploymentHandle, exchange: LoadExchange = NO_EXCHANGE) -> None:
        self._generate = handle.options(stream=True).generate
        self._report = handle.report
        self._deployment = handle.deployment_name
        self._exchange = exchange

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        """Yield the stream of an answer's deltas, if possible from a replica not in `avoid`.

        With `strict` the call waits for a replica not in `avoid`. With `only` it goes to this replica or fails.
        Leaving the context cancels the request in the replica.
        """
        route = self._exchange.route(_new_id(), avoid, strict=strict, sticky=request.session, only=only)
        async with _open("llm", self._generate, request, route, exchange=self._exchange) as stream:
            yield cast(LlmStream, stream)

    def queue(self, avoid: frozenset[str]) -> int | None:
        """Return the shortest queue among the replicas not in `avoid`, in requests; None if it is unknown."""
        return shortest_queue(self._deployment, avoid)

    async def report(self, replica: str, idle_s: float) -> StreamReport:
        """Return the replica's own report on its streams. See `LlmPort.report`."""
        return cast(StreamReport, await _call("llm", self._report, idle_s, ANYWHERE, only=replica))


class TtsHandle:
    """`TtsPort` over the Ray Serve handle of the Tts deployment."""

    def __init__(self, handle: DeploymentHandle, exchange: LoadExchange = NO_EXCHANGE) -> None:
        self._synthesize = handle.options(stream=True).synthesize
        self._exchange = exchange
        self._watch = _silence_watch("tts", handle)

    @asynccontextmanager
    async def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the stream of a segment's 24 kHz PCM chunks, if possible from a replica not in `avoid`.

        Leaving the context cancels the request in the replica. The wait for a chunk fails if the replica is silent (see
        `actors.stages.silence`). See `TtsPort.open`.
        """
        route, watch = self._exchange.route(_new_id(), self._watch.avoid(avoid)), self._watch
        async with _open("tts", self._synthesize, request, route, exchange=self._exchange, watch=watch) as stream:
            yield cast(AsyncIterator[bytes], stream)


class AnswerCacheHandle:
    """`AnswerCachePort` over the Ray Serve handle of the AnswerCache deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._lookup = handle.lookup
        self._store = handle.store

    async def lookup(self, question: CacheQuestion, *, avoid: frozenset[str] = ANYWHERE) -> CacheHit | None:
        """Return the cached answer to the same or a similar question, or None. See `AnswerCachePort.lookup`."""
        return cast("CacheHit | None", await _call("answer_cache", self._lookup, question, avoid))

    async def store(self, answered: CachedAnswer, *, avoid: frozenset[str] = ANYWHERE) -> None:
        """Store an answer. See `AnswerCachePort.store`."""
        await _call("answer_cache", self._store, answered, avoid)
