"""The gate of the HTTP routes: checks origin and key of a request, and the places of the key.

A refused client gets an HTTP status before anything is upgraded: 403 for the page of another origin or a key without
the scope, 401 for a missing or wrong key, 429 if the key has too many sessions.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from rejoinder.core.access.access_control import AccessControl, Client
from rejoinder.core.access.api_keys import Scope
from rejoinder.core.errors import CallerError
from rejoinder.core.wire import session as wire_session
from rejoinder.core.wire.fields import Fields, refuse

MAX_BODY_BYTES = 16_384
"""Maximum size of the body of an HTTP request."""


class KeyLimitReached(Exception):
    """Raised if a key may have no further session now.

    Attributes:
        refusal: The response with status 429 and Retry-After.
    """

    def __init__(self, wait_s: float) -> None:
        message = "This key has as many sessions as it may."
        self.refusal = refusal_of(429, "rate_limit_exceeded", message, retry_after_s=wait_s)
        super().__init__(f"retry after {wait_s:.0f} s")


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
            return client
    if any(access.client(sent, scope, now) for scope in Scope):
        return refusal_of(403, "scope_missing", f"This key lacks the scope {scopes[0].value}.")
    return refusal_of(401, "invalid_api_key", "Missing or unknown API key.")


@contextmanager
def key_place(access: AccessControl, client: Client) -> Iterator[None]:
    """Count a session of a client's key until the block ends.

    Raises:
        KeyLimitReached: The key may have no further session now.
    """
    if wait_s := access.enter(client, time.monotonic()):
        raise KeyLimitReached(wait_s)
    try:
        yield
    finally:
        access.leave(client)


async def create_secret(access: AccessControl, request: Request) -> Response:
    """Return the response to `POST /v1/realtime/client_secrets`.

    Its settings of the session are checked now, so that a mistake is not found only by the browser.
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
        config = started(secret.session, "rejoinder")
    except CallerError as fault:
        error = {"message": str(fault), "type": "invalid_request_error", "code": fault.code, "param": fault.param}
        return JSONResponse({"error": error}, status_code=400)
    echo = wire_session.echo(config, f"sess_{secret.expires_at}", secret.expires_at)
    return JSONResponse({"value": text, "expires_at": secret.expires_at, "session": echo})


def started(session: dict[str, Any], model: str) -> wire_session.SessionConfig:
    """Return the configuration with which a session begins.

    Args:
        session: The settings in a client secret; empty for none.
        model: The model name that the client requested.

    Raises:
        CallerError: A setting is invalid.
    """
    config = wire_session.SessionConfig(model=model)
    return wire_session.merge(config, Fields({"type": "realtime", **session}, "session")) if session else config


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


def _candidates(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the texts where a request may have its key: a bearer token, or a subprotocol (OpenAI's browser client)."""
    yield headers.get("authorization", "").removeprefix("Bearer ").strip()
    for part in headers.get("sec-websocket-protocol", "").split(","):
        yield part.strip().removeprefix("openai-insecure-api-key.")


async def _body(request: Request) -> Any:
    """Return the JSON body of a request; an empty one counts as an empty object. Raise CallerError if it is invalid."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise refuse("The body is too large.", "", remedy=f"Send at most {MAX_BODY_BYTES} bytes.")
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise refuse("The body is not JSON.", "", code="invalid_json", remedy="Send one JSON object.") from None
