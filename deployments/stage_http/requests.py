"""What all routes of single stages have in common: keys, places, bodies, errors, and the end of a connection.

The work of a request is cancelled as soon as its client is gone, and with it the work in the stage's replica.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect

from actors.host import Host
from deployments.serving.gate import admitted, caller_error, refusal_of
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.access.api_keys import Scope
from rejoinder.core.errors import BackendError, CallerError, Overloaded, RejoinderError
from rejoinder.core.http_api.places import HostState, RequestPlaces, RequestRefusal, StageRoute
from rejoinder.core.settings.access.stage_http import StageHttpSettings
from rejoinder.core.wire.fields import Fields, Json, refuse

Result = TypeVar("Result")

DROP_BYTES, DROP_S = 33_554_432, 2.0
"""Bytes and seconds for which the rest of a refused body is read."""
CLIENT_GONE = 499
"""Status of a request whose client has gone away (nobody receives it; it shows in logs)."""


class BodyTooLarge(Exception):
    """Raised if the body of a request has more bytes than it may."""


class RequestRefused(Exception):
    """Raised with the response that refuses a request."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass
class StageGate:
    """Admits requests to the stages of one host.

    Attributes:
        host: The host.
        access: Its keys.
        places: The requests that run.
    """

    host: Host
    access: AccessControl
    places: RequestPlaces = field(init=False)

    def __post_init__(self) -> None:
        self.places = RequestPlaces(self.settings)

    @property
    def settings(self) -> StageHttpSettings:
        """The settings of the routes."""
        return self.host.services.settings.stage_http

    async def enter(self, request: Request, route: StageRoute, stack: AsyncExitStack) -> str:
        """Take a place for a request until the stack is closed, and return the tenant of its key.

        Raises:
            RequestRefused: The request has no valid key, or there is no place for it.
        """
        client = admitted(self.access, request.headers, Scope.TALK)
        if isinstance(client, Response):
            raise RequestRefused(client)
        key = client.key.digest if client.key else ""
        if refusal := self.places.enter(route, key, self._state()):
            raise RequestRefused(self._refused(refusal))
        stack.callback(self.places.leave, route, key)
        return client.tenant

    def _refused(self, refusal: RequestRefusal) -> Response:
        code = "overloaded" if refusal.status == 503 else "rate_limit_exceeded"
        return refusal_of(refusal.status, code, refusal.message, retry_after_s=self.settings.retry_after_s)

    def _state(self) -> HostState:
        host, admission = self.host, self.host.services.stage_admission
        return HostState(
            host.lost_stages,
            late=host.late,
            calls=host.live,
            stages_full=admission is not None and admission.yields,
        )


class LimitedBody:
    """The body of a request, of at most `most` bytes.

    Attributes:
        request: The request, whose body raises BodyTooLarge after `most` bytes.
    """

    def __init__(self, request: Request, most: int) -> None:
        """Wrap the body of `request`, of which nothing has been read."""
        self.request = Request(request.scope, self._limited)
        self._receive = request.receive
        self._left = most
        self._complete = False

    def check_promise(self) -> None:
        """Raise BodyTooLarge if the header Content-Length promises too many bytes."""
        promised = self.request.headers.get("content-length", "")
        if promised.isdigit() and int(promised) > self._left:
            raise BodyTooLarge

    async def drop(self) -> None:
        """Read the rest of the body and drop it, for at most DROP_S and DROP_BYTES.

        A connection that is closed while the client still writes is reset, and the client then misses the answer.
        """
        with suppress(TimeoutError):  # a slower client misses the answer
            async with asyncio.timeout(DROP_S):
                while not self._complete and self._left > -DROP_BYTES:
                    await self._next()

    async def _limited(self) -> Any:
        message = await self._next()
        if self._left < 0:
            raise BodyTooLarge
        return message

    async def _next(self) -> Any:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        self._complete = self._complete or message["type"] != "http.request" or not message.get("more_body")
        return message


async def json_body(request: Request) -> Fields:
    """Return the JSON object in the body of a request. Raise CallerError if the body is something else."""
    body = await request.body()
    try:
        return Fields(json.loads(body), "")
    except (ValueError, RecursionError):
        raise refuse("The body is not JSON.", "", code="invalid_json", remedy="Send one JSON object.") from None


async def answered(request: Request, most: int, route: Callable[[Request], Awaitable[Response]]) -> Response:
    """Return the response of a route, or a refusal that gives the reason.

    Args:
        request: The request.
        most: Maximum number of bytes of its body.
        route: Makes the response. It gets the request with the limited body.
    """
    body = LimitedBody(request, most)
    try:
        body.check_promise()
        return await route(body.request)
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    except BodyTooLarge:
        refusal = refusal_of(413, "body_too_large", f"The body is too large. Send at most {most} bytes.")
    except RequestRefused as refused:
        refusal = refused.response
    except RejoinderError as fault:
        refusal = error_response(fault)
    await body.drop()
    return refusal


def error_response(fault: RejoinderError) -> Response:
    """Return the response for an error of a request or of a stage."""
    if isinstance(fault, CallerError):
        return caller_error(fault)
    full = fault if isinstance(fault, Overloaded) else fault.__cause__
    if isinstance(full, Overloaded):
        return refusal_of(503, "overloaded", str(full), retry_after_s=full.retry_after_s)
    if isinstance(fault, BackendError):
        return refusal_of(502, "stage_failed", str(fault))
    return refusal_of(500, "server_error", str(fault))


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`. Cancel it if the client goes away.

    The body must have been read.

    Raises:
        ClientDisconnect: The client has gone away.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait({working, watching})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def streamed(
    request: Request, pieces: AsyncGenerator[bytes, None], stack: AsyncExitStack, media_type: str
) -> Response:
    """Return a streaming response, once its first piece is there: until then a failure has its own status.

    The stack, which has the request's place, is closed when the stream ends, for any reason.
    """
    try:
        first = await while_connected(request, _first(pieces))
    except BaseException:  # also if the request is cancelled: the stage must stop working
        await pieces.aclose()
        raise
    kept = stack.pop_all()

    async def body() -> AsyncIterator[bytes]:
        async with kept, aclosing(pieces):
            if first is not None:
                yield first
                async for piece in pieces:
                    yield piece

    return _ClosingStream(body(), kept, media_type=media_type, headers={"Cache-Control": "no-store"})


async def _first(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(pieces, None)


class _ClosingStream(StreamingResponse):
    """Streaming response that frees the request's place also if the client is gone before the first byte."""

    def __init__(self, body: AsyncIterator[bytes], kept: AsyncExitStack, **options: Any) -> None:
        super().__init__(body, **options)
        self._body = body
        self._kept = kept

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if isinstance(self._body, AsyncGenerator):
                await self._body.aclose()
            await self._kept.aclose()


async def event_lines(events: AsyncGenerator[Json, None], *, done: bool) -> AsyncGenerator[bytes, None]:
    """Yield JSON events as server-sent events.

    An error before the first event is raised, and one after it is sent as an event.

    Args:
        events: The events.
        done: True to end the stream with [DONE], as chat completions do.
    """
    begun = False
    async with aclosing(events):
        try:
            async for event in events:
                yield b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
                begun = True
        except RejoinderError as fault:
            if not begun:
                raise
            error = {"message": str(fault), "type": "server_error", "code": "stage_failed", "param": None}
            yield b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
            return
    if done:
        yield b"data: [DONE]\n\n"
