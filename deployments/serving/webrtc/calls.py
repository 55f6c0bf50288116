"""HTTP routes of calls over WebRTC: the offer and its answer, hanging up, and what a page needs to know before.

The answer leaves when this end of the connection is ready. The call then runs on as a task of the host: media comes to
the host itself, by UDP, past HAProxy. The request of the offer ends with the call, so that Serve counts the call, and
waits for it when the host is drained.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import importlib
import importlib.util
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.background import BackgroundTask

from actors.host import Host
from deployments.serving.gate import (
    ClientLimitReached,
    ResumeRequest,
    admitted,
    caller_error,
    client_place,
    read_body,
    refusal_of,
    resume_request,
)
from deployments.transports.conversation import CallStart, opening_of
from deployments.transports.webrtc.call import WebRtcCall
from deployments.transports.webrtc.peer import Connect
from rejoinder.core.access.access_control import AccessControl, Client
from rejoinder.core.access.api_keys import Scope
from rejoinder.core.access.turn_credentials import turn_credentials
from rejoinder.core.errors import BackendError, CallerError, Overloaded
from rejoinder.core.settings.access.webrtc import IceServer, WebRtcSettings
from rejoinder.core.wire.fields import Json, refuse
from rejoinder.core.wire.handshake import started, trace_context
from rejoinder.core.wire.sdp import MAX_SDP

logger = logging.getLogger(__name__)

LIBRARY = "aiortc"
MISSING = "This host has no WebRTC: install the package's extra `webrtc` on it, or connect over WebSocket."
OFF = "Calls over WebRTC are switched off (webrtc.enabled). Connect over WebSocket."
MAX_BODY = 2 * MAX_SDP
NOT_FOUND = "No journal has this conversation any more. Open a new session and send its history."


class CallHost(Protocol):
    """Protocol of the host deployment whose calls are served."""

    @property
    def host(self) -> Host:
        """The host that runs this process's conversations."""
        ...

    @property
    def access(self) -> AccessControl:
        """The accepted API keys and origins."""
        ...


class WebRtcCalls:
    """The calls over WebRTC of one host, each with its task. Not thread-safe."""

    def __init__(self, served: CallHost, connect: Connect | None = None) -> None:
        """Create an empty set of calls. `connect` makes a connection; None: aiortc does, if it is installed."""
        self._served = served
        self._connect = connect
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def refusal(self) -> Response | None:
        """The response with which every call is refused; None if calls are possible."""
        if not self._settings.enabled:
            return refusal_of(501, "webrtc_disabled", OFF)
        if self._connect is None and importlib.util.find_spec(LIBRARY) is None:
            return refusal_of(501, "webrtc_not_installed", MISSING)
        return None

    @property
    def _settings(self) -> WebRtcSettings:
        return self._served.host.services.settings.webrtc

    async def begin(
        self, client: Client, resume: ResumeRequest | None, opening: CallStart, offer: str
    ) -> tuple[str, str]:
        """Start a call and return (its id, the answer to the offer).

        Raises:
            CallerError: The offer cannot be answered.
            ClientLimitReached: The client has too many sessions.
            Overloaded: The host has no place.
        """
        call_id = f"rtc_{secrets.token_hex(12)}"
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        run = self._run(answer, client, resumed=resume is not None, opening=opening, offer=offer)
        task = self._tasks[call_id] = asyncio.create_task(run)
        task.add_done_callback(lambda _: self._tasks.pop(call_id, None))
        try:
            return call_id, await asyncio.shield(answer)
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def ended(self, call_id: str) -> None:
        """Wait until a call has ended. Cancelling does not end it."""
        if task := self._tasks.get(call_id):
            await asyncio.wait({task})

    def hang_up(self, call_id: str) -> bool:
        """End a call. Return False if this host has no call with the id."""
        task = self._tasks.get(call_id)
        return task is not None and task.cancel()

    async def _run(
        self, answer: asyncio.Future[str], client: Client, *, resumed: bool, opening: CallStart, offer: str
    ) -> None:
        """Run one call from its place on the host to its end. `answer` gets the answer, or an error instead."""
        host, access = self._served.host, self._served.access
        try:
            connect = self._connect or _aiortc()
            with client_place(access, client, resumed=resumed), host.seat(resumed=resumed):
                call = WebRtcCall(host, opening, offer, connect)
                try:
                    answer.set_result(await call.answer())
                    await call.run()
                finally:
                    await call.close()
        except (CallerError, ClientLimitReached, Overloaded) as refused:
            if not answer.done():
                answer.set_exception(refused)
        except Exception as fault:  # catch everything here: a bug ends this call and no other
            logger.exception("a call over WebRTC failed")
            host.services.metrics.error("internal", "session")
            if not answer.done():
                answer.set_exception(fault)


def _aiortc() -> Connect:
    """Return the function that makes connections of aiortc. It is imported now, because it takes half a second."""
    module = importlib.import_module("deployments.transports.webrtc.aiortc_peer")
    connect: Connect = module.connect
    return connect


def add_call_routes(web: FastAPI, served: CallHost, is_direct: Callable[[Mapping[str, Any]], bool]) -> None:
    """Add the routes of calls over WebRTC. `is_direct` tells whether a request did not come through Serve's proxy."""
    calls = WebRtcCalls(served)

    @web.post("/v1/realtime/calls")
    @web.post("/realtime/calls")
    async def offer(request: Request) -> Response:
        """Answer the offer of a call (SDP) with 201, and start the call."""
        return await _answered(calls, served, request, direct=is_direct(request.scope))

    @web.post("/v1/realtime/calls/{call_id}/hangup")
    async def hang_up(request: Request, call_id: str) -> Response:
        """End a call of this host. The id, which only its client knows, is what gives the right to it."""
        client = admitted(served.access, request.headers, Scope.TALK)
        if isinstance(client, Response):
            return client
        if not calls.hang_up(call_id):
            return refusal_of(404, "call_not_found", "This host has no call with this id.")
        return Response(status_code=200)

    @web.get("/v1/realtime/webrtc")
    async def facts(request: Request) -> Response:
        """Return whether calls over WebRTC are possible, and the STUN and TURN servers to use."""
        client = admitted(served.access, request.headers, Scope.TALK)
        if isinstance(client, Response):
            return client
        return JSONResponse(_facts(served.host.services.settings.webrtc, available=calls.refusal is None))


def _facts(settings: WebRtcSettings, *, available: bool) -> Json:
    servers = [_ice_server(entry, time.time()) for entry in settings.ice_servers] if available else []
    return {
        "available": available,
        "ice_servers": servers,
        "ice_transport_policy": settings.ice_transport_policy,
    }


def _ice_server(entry: IceServer, now: float) -> Json:
    """Return a server as the browser's `RTCIceServer`, with credentials from the environment."""
    username, credential = entry.username, os.environ.get(entry.credential_env, "") if entry.credential_env else ""
    if entry.secret_env:
        username, credential = turn_credentials(os.environ.get(entry.secret_env, ""), entry.credential_ttl_s, now)
    named = {"username": username, "credential": credential} if username else {}
    return {"urls": list(entry.urls), **named}


async def _answered(calls: WebRtcCalls, served: CallHost, request: Request, *, direct: bool) -> Response:
    """Return the response to an offer: 201 with the answer, or a refusal with an error in JSON."""
    keeper = served.host.keeper
    resume = await resume_request(served.access, keeper, request.headers, request.query_params)
    if isinstance(resume, Response):
        return resume
    client = resume.client if resume else admitted(served.access, request.headers, Scope.TALK)
    if isinstance(client, Response):
        return client
    if not direct:
        return refusal_of(503, "not_ready", "HAProxy does not reach this host yet. Try again.", retry_after_s=1.0)
    if refusal := calls.refusal:
        return refusal
    try:
        offer, session = await _parts(request)
        config = started({**client.session, **session}, request.query_params)
        config = replace(config, traceparent=trace_context(request.headers, request.query_params))
        origin = await keeper.claim(resume.token, resume.report) if resume and keeper else None
        if resume and origin is None:
            return refusal_of(404, "session_not_found", NOT_FOUND)
        owner = client.key.digest if client.key else ""
        opening = opening_of(served.host, config, tenant=client.tenant, owner=owner, origin=origin)
        call_id, answer = await calls.begin(client, resume, opening, offer)
    except CallerError as fault:
        return caller_error(fault)
    except ClientLimitReached as limit:
        return limit.refusal
    except Overloaded as full:
        return refusal_of(503, "overloaded", str(full), retry_after_s=full.retry_after_s)
    except BackendError as fault:
        return refusal_of(503, "journal_unavailable", str(fault), retry_after_s=1.0)
    headers = {"Location": f"/v1/realtime/calls/{call_id}"}
    lasting = BackgroundTask(calls.ended, call_id)
    return Response(answer, status_code=201, headers=headers, media_type="application/sdp", background=lasting)


async def _parts(request: Request) -> tuple[str, Json]:
    """Return (offer, settings of the session) of a request: the offer alone, or a form with `sdp` and `session`.

    Raises:
        CallerError: The body is neither, or too large.
    """
    body = await read_body(request, MAX_BODY)
    if body is None:
        raise refuse("The body is too large.", "", remedy=f"Send at most {MAX_BODY} bytes.")
    kind = request.headers.get("content-type", "")
    if kind.split(";")[0].strip().lower() != "multipart/form-data":
        return body.decode(errors="replace"), {}
    parts = _form(body, kind)
    if "sdp" not in parts:
        raise refuse("The form has no part sdp.", "sdp", remedy="Send the offer as the part sdp.")
    return parts["sdp"], _session(parts.get("session", "{}"))


def _session(text: str) -> Json:
    try:
        session = json.loads(text)
    except (ValueError, RecursionError):
        session = None
    if not isinstance(session, dict):
        raise refuse("The part session is not a JSON object.", "session", remedy="Send one JSON object.")
    return session


def _form(body: bytes, kind: str) -> dict[str, str]:
    """Return the parts of a form by name. A form has the syntax of an e-mail (RFC 7578). `kind` is its Content-Type.

    Raises:
        CallerError: It has no parts.
    """
    try:
        message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body, policy=email.policy.HTTP)
        parts = {
            str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
            for part in message.iter_parts()
        }
    except (ValueError, LookupError, AttributeError, TypeError):
        parts = {}
    if not parts:
        raise refuse("The form cannot be read.", "", remedy="Send multipart/form-data with the parts sdp and session.")
    return {name: bytes(value).decode(errors="replace") for name, value in parts.items() if isinstance(value, bytes)}
