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
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import grpc
from ray.exceptions import RayActorError, RayTaskError
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
from deployments.serving.compat import cancel_request
from deployments.serving.placements import NoReplicaAvailable, ReplicaRoute, forget, placed, shortest_queue
from rejoinder.core.errors import BackendError, Overloaded, RejoinderError
from rejoinder.core.reply.answer_cache import CacheHit, CacheQuestion
from rejoinder.core.resilience.stream_report import StreamReport

_numbers = itertools.count(1)


def _new_route(avoid: frozenset[str], strict: bool = False, sticky: str = "", *, only: str = "") -> ReplicaRoute:
    """Return the `ReplicaRoute` of a new call, with an id that is unique in this process.

    `avoid` has the ids of replicas that should not get the call. With `strict` the call waits for another replica.
    Calls with the same `sticky` text prefer the same replica. With `only`, the call goes to the replica with this id.
    """
    return ReplicaRoute(f"{os.getpid()}-{next(_numbers)}", avoid, strict, sticky=sticky, only=only)


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
    except (RayActorError, RayServeException, grpc.RpcError, RuntimeError, ConnectionError) as error:
        raise BackendError(
            f"{stage} lost its replica: {type(error).__name__}", stage=stage, replica=placed(route.request_id)
        ) from error
    finally:
        forget(route.request_id)


async def _call(stage: str, method: Any, payload: object, avoid: frozenset[str]) -> Any:
    """Call a method on a replica, if possible one not in `avoid`, and return its result.

    Cancelling the call cancels the request in the replica.

    `method` is a method of a Serve handle, `payload` its argument, and `stage` the name for errors.
    """
    return await _call_on(stage, method, payload, _new_route(avoid))


async def _call_on(stage: str, method: Any, payload: object, route: ReplicaRoute) -> Any:
    """Call a method as `_call` does, on a replica that `route` allows."""
    with _translated_errors(stage, route):
        response = method.remote(payload, route)
        try:
            return await response
        finally:
            cancel_request(response)


class _Stream:
    """Iterator over the items of a replica's stream. The first item is requested on construction."""

    def __init__(self, generator: Any, stage: str, route: ReplicaRoute) -> None:
        self._generator = generator
        self._stage = stage
        self._route = route
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
                return await first
            return await anext(self._generator)

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
async def _open(stage: str, method: Any, payload: object, route: ReplicaRoute) -> AsyncIterator[_Stream]:
    """Call a streaming method and yield the iterator over its items. Leaving the context cancels the call.

    `method` is a method of a Serve handle, `payload` its argument, and `stage` the name for errors.
    """
    stream = _Stream(method.remote(payload, route), stage, route)
    try:
        yield stream
    finally:
        await stream.close()
        forget(route.request_id)


class VadHandle:
    """`VadPort` over the Ray Serve handle of the Vad deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._step = handle.step

    async def step(self, batch: VadBatch, *, avoid: frozenset[str] = ANYWHERE) -> VadResult:
        """Return the speech probabilities and the next states of a batch of windows.

        The batch runs on a replica not in `avoid`, if there is one. See `VadPort.step`.
        """
        return cast(VadResult, await _call("vad", self._step, batch, avoid))


class TurnDetectorHandle:
    """`TurnDetectorPort` over the Ray Serve handle of the TurnDetector deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._predict = handle.predict

    async def predict(self, pcm: bytes, *, avoid: frozenset[str] = ANYWHERE) -> TurnVerdict:
        """Return the probability that the turn is complete, if possible from a replica not in `avoid`.

        See `TurnDetectorPort.predict`.
        """
        return cast(TurnVerdict, await _call("turn_detector", self._predict, pcm, avoid))


class SttHandle:
    """`SttPort` over the Ray Serve handle of the Stt deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._transcribe = handle.transcribe

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        """Return the transcript of one utterance, if possible from a replica not in `avoid`.

        Cancelling this call removes the job from the replica's queue. See `SttPort.transcribe`.
        """
        return cast(Transcript, await _call("stt", self._transcribe, job, avoid))


class LlmHandle:
    """`LlmPort` over the Ray Serve handle of the Llm or LlmBackup deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._generate = handle.options(stream=True).generate
        self._report = handle.report
        self._deployment = handle.deployment_name

    @asynccontextmanager
    async def open(
        self, request: LlmRequest, *, avoid: frozenset[str] = ANYWHERE, strict: bool = False, only: str = ""
    ) -> AsyncIterator[LlmStream]:
        """Yield the stream of an answer's deltas, if possible from a replica not in `avoid`.

        With `strict` the call waits for a replica not in `avoid`. With `only` it goes to this replica or fails.
        Leaving the context cancels the request in the replica.
        """
        route = _new_route(avoid, strict, request.session, only=only)
        async with _open("llm", self._generate, request, route) as stream:
            yield cast(LlmStream, stream)

    def queue(self, avoid: frozenset[str]) -> int | None:
        """Return the shortest queue among the replicas not in `avoid`, in requests; None if it is unknown."""
        return shortest_queue(self._deployment, avoid)

    async def report(self, replica: str, idle_s: float) -> StreamReport:
        """Return the replica's own report on its streams. See `LlmPort.report`."""
        return cast(StreamReport, await _call_on("llm", self._report, idle_s, _new_route(ANYWHERE, only=replica)))


class TtsHandle:
    """`TtsPort` over the Ray Serve handle of the Tts deployment."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._synthesize = handle.options(stream=True).synthesize

    @asynccontextmanager
    async def open(
        self, request: TtsRequest, *, avoid: frozenset[str] = ANYWHERE
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the stream of a segment's 24 kHz PCM chunks, if possible from a replica not in `avoid`.

        Leaving the context cancels the request in the replica. See `TtsPort.open`.
        """
        async with _open("tts", self._synthesize, request, _new_route(avoid)) as stream:
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
