"""The gate of the HTTP routes: checks origin and key of a request, and the places of the key.

A refused client gets an HTTP status before anything is upgraded: 403 for the page of another origin or a key without
the scope, 401 for a missing or wrong key, 429 if the key or the client's address has too many sessions.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from actors.survival.session_keeper import SessionKeeper
from rejoinder.core.access.access_control import AccessControl, Client, Refusal, network_of
from rejoinder.core.access.api_keys import Scope
from rejoinder.core.errors import CallerError
from rejoinder.core.survival.resume_token import ResumeToken
from rejoinder.core.survival.resumption import HeardReport
from rejoinder.core.wire import session as wire_session
from rejoinder.core.wire.fields import Fields, refuse
from rejoinder.core.wire.handshake import started

MAX_BODY_BYTES = 16_384
"""Maximum size of the body of an HTTP request."""


class ClientLimitReached(Exception):
    """Raised if a key or a network address may have no further session now.

    Attributes:
        refusal: The response with status 429 and Retry-After.
    """

    def __init__(self, reason: Refusal) -> None:
        self.refusal = refusal_of(429, "rate_limit_exceeded", reason.message, retry_after_s=reason.wait_s)
        super().__init__(reason.message)


def admitted(access: AccessControl, headers: Mapping[str, str], *scopes: Scope) -> Client | Response:
    """Return the client of a request, or the response that refuses it.

    Args:
        access: The access control of the host.
        headers: The request's headers, with names in lower case or a case-insensitive mapping.
        scopes: What the client wants to do. One of them is enough.
    """
    if not access.origin_allowed(headers.get("origin"), headers.get("host")):
        return refusal_of(403, "origin_not_allowed", "Pages of this origin may not connect: see access.origins.")
    now, sent = time.time(), tuple(_candidates(headers))
    for scope in scopes:
        if client := access.client(sent, scope, now):
            return replace(client, address=_address(headers))
    if any(access.client(sent, scope, now) for scope in Scope):
        return refusal_of(403, "scope_missing", f"This key lacks the scope {scopes[0].value}.")
    return refusal_of(401, "invalid_api_key", "Missing or unknown API key.")


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """A client's request to go on with a session.

    Attributes:
        token: Its resume token, which is valid.
        report: What it has played of the last reply; None if it did not say.
        client: The client.
    """

    token: ResumeToken
    report: HeardReport | None
    client: Client


async def resume_request(
    access: AccessControl, keeper: SessionKeeper | None, headers: Mapping[str, str], query: Mapping[str, str]
) -> ResumeRequest | Response | None:
    """Return the client's request to resume a session, or the response that refuses it; None if it wants a new one.

    Args:
        access: The access control of the host.
        keeper: Knows the resume tokens; None if the host has no journal. Then every token is refused.
        headers: The request's headers, with names in lower case or a case-insensitive mapping.
        query: The parameters of the request's address.
    """
    text = query.get("resume_token") or headers.get("x-rejoinder-resume")
    if not text:
        return None
    if not access.origin_allowed(headers.get("origin"), headers.get("host")):
        return refusal_of(403, "origin_not_allowed", "Pages of this origin may not connect: see access.origins.")
    token = await keeper.token(text) if keeper else None
    client = access.resuming(token.owner, tuple(_candidates(headers)), time.time()) if token else None
    if token is None or client is None:
        return refusal_of(401, "invalid_resume_token", "The resume token is wrong or expired. Open a new session.")
    client = replace(client, address=_address(headers))
    played = query.get("heard") or headers.get("x-rejoinder-heard") or ""
    item_id, _, milliseconds = played.rpartition(":")
    if not played:
        return ResumeRequest(token, None, client)
    if not item_id or not milliseconds.isascii() or not milliseconds.isdigit() or len(milliseconds) > 9:
        return refusal_of(400, "invalid_value", "heard is not ITEM_ID:MILLISECONDS, such as heard=item_ab_0003:1250.")
    return ResumeRequest(token, HeardReport(item_id, int(milliseconds)), client)


@contextmanager
def client_place(access: AccessControl, client: Client, *, resumed: bool = False) -> Iterator[None]:
    """Count a session of a client's key and network address until the block ends.

    A session that is `resumed` is never refused.

    Raises:
        ClientLimitReached: The key or the address may have no further session now.
    """
    if reason := access.enter(client, time.monotonic(), resumed=resumed):
        raise ClientLimitReached(reason)
    try:
        yield
    finally:
        access.leave(client)


async def create_secret(access: AccessControl, request: Request) -> Response:
    """Return the response to `POST /v1/realtime/client_secrets`.

    The session settings in the request are checked here. So the server that asks for the secret learns of a mistake,
    and not only the browser that later connects with the secret.
    """
    client = admitted(access, request.headers, Scope.TALK)
    if isinstance(client, Response):
        return client
    if client.session:
        return refusal_of(403, "scope_missing", "A client secret cannot request another one.")
    if not access.settings.signing_key:
        # Not 503: HAProxy would send the request to other hosts, which have no signing key either.
        return refusal_of(501, "not_configured", f"Set {access.settings.signing_key_env} on every host.")
    try:
        text, secret = access.issue(client, Fields(await _body(request), ""), time.time())
        config = started(secret.session, {})
    except CallerError as fault:
        return caller_error(fault)
    echo = wire_session.echo(config, f"sess_{secret.expires_at}", secret.expires_at)
    return JSONResponse({"value": text, "expires_at": secret.expires_at, "session": echo})


def preflight(access: AccessControl, request: Request) -> Response | None:
    """Return the answer to a browser that asks whether a page of another origin may send a request, None otherwise.

    A browser asks so before it sends a request with a key or JSON (https://fetch.spec.whatwg.org/#http-cors-protocol).
    """
    headers = request.headers
    if request.method != "OPTIONS" or "access-control-request-method" not in headers:
        return None
    if not access.origin_allowed(headers.get("origin"), headers.get("host")):
        return refusal_of(403, "origin_not_allowed", "Pages of this origin may not connect: see access.origins.")
    answer = Response(status_code=204)
    allow_page(access, headers, answer)
    answer.headers["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
    # The page may send any header: what it may do is decided by its origin and its key.
    answer.headers["Access-Control-Allow-Headers"] = headers.get("access-control-request-headers", "")
    answer.headers["Access-Control-Max-Age"] = "600"
    return answer


def allow_page(access: AccessControl, headers: Mapping[str, str], answer: Response) -> None:
    """Let a page whose origin is allowed read an answer. `headers` are those of the request."""
    answer.headers["Vary"] = "Origin"
    origin = headers.get("origin")
    if origin is not None and access.origin_allowed(origin, headers.get("host")):
        answer.headers["Access-Control-Allow-Origin"] = origin
        answer.headers["Access-Control-Expose-Headers"] = "Location, Retry-After"


def refusal_of(status: int, code: str, message: str, *, retry_after_s: float | None = None) -> Response:
    """Return a response with an error in the OpenAI API's format.

    Args:
        status: HTTP status.
        code: Code of the error.
        message: What is wrong.
        retry_after_s: Seconds after which the client may try again, for the header Retry-After; None for no header. The
            header has whole seconds, at least 1, rounded up, so that a client that waits as told is not too early.
    """
    kind = "server_error" if status >= 500 else "invalid_request_error"
    headers = None if retry_after_s is None else {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
    error = {"message": message, "type": kind, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def caller_error(fault: CallerError) -> Response:
    """Return the response, with status 400, for a mistake in a request. It names the field."""
    error = {"message": str(fault), "type": "invalid_request_error", "code": fault.code, "param": fault.param}
    return JSONResponse({"error": error}, status_code=400)


async def read_body(request: Request, most: int) -> bytes | None:
    """Return the body of a request; None if it has more than `most` bytes. Raise ClientDisconnect if it ends early."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            return None
    return bytes(body)


def _address(headers: Mapping[str, str]) -> str:
    """Return the network address of a client, "" if it is unknown.

    HAProxy has written it (`cluster.haproxy`): the last entry is the client, as the last proxy that is trusted has seen
    it.
    """
    return network_of(headers.get("x-forwarded-for", "").rpartition(",")[2])


def _candidates(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the texts where a request may have its key.

    They are a bearer token, Azure's header api-key, and a subprotocol (OpenAI's browser client).
    """
    yield headers.get("authorization", "").removeprefix("Bearer ").strip()
    yield headers.get("api-key", "").strip()
    for part in headers.get("sec-websocket-protocol", "").split(","):
        yield part.strip().removeprefix("openai-insecure-api-key.")


async def _body(request: Request) -> Any:
    """Return the JSON body of a request; an empty one counts as an empty object. Raise CallerError if it is invalid."""
    try:
        body = await read_body(request, MAX_BODY_BYTES)
    except ClientDisconnect:
        raise refuse("The body is not complete.", "", code="invalid_json", remedy="Send all of it.") from None
    if body is None:
        raise refuse("The body is too large.", "", remedy=f"Send at most {MAX_BODY_BYTES} bytes.")
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise refuse("The body is not JSON.", "", code="invalid_json", remedy="Send one JSON object.") from None
