"""HTTP routes of a session host: conversations over WebSocket, health, models and Prometheus targets.

Authentication and admission happen before the WebSocket upgrade. So a refused client gets an HTTP status and a retry
hint, not a connection that opens and closes. HAProxy sends a handshake that is refused with 503 to another host, so
status 503 is only for refusals that another host may decide otherwise.

Connections through Serve's Python proxy are refused in the same way. HAProxy falls back to that proxy while it has no
host. The proxy saturates at a few dozen conversations, and a WebSocket that came through it would stay there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import psutil
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from starlette.middleware.base import RequestResponseEndpoint

from actors.host import Host
from deployments.serving.gate import (
    ClientLimitReached,
    ResumeRequest,
    admitted,
    allow_page,
    client_place,
    create_secret,
    preflight,
    refusal_of,
    resume_request,
)
from deployments.serving.webrtc.calls import add_call_routes
from deployments.stage_http.routes import add_stage_routes
from deployments.talk_page.page_routes import add_talk_page
from deployments.telephony.twilio_routes import add_twilio
from deployments.transports.call_protocol import EXTENSION
from deployments.transports.realtime_ws import RealtimeSocket
from rejoinder.core.access.access_control import AccessControl, Client
from rejoinder.core.access.api_keys import Scope
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.wire.handshake import MODEL, PATHS, drops_replies, started, trace_context, unserved_handshake

NOT_READY = (
    "HAProxy does not reach this host yet, and Serve's Python proxy cannot carry audio. Try again in a second. If the "
    "error persists, start every node with RAY_SERVE_ENABLE_HA_PROXY=1."
)


NOT_FOUND = "No journal has this conversation any more. Open a new session and send its history."


class ProxyCheck:
    """Distinguishes connections that this process accepted from those that Serve's Python proxy forwarded."""

    def __init__(self) -> None:
        self._own_ports: frozenset[int] = frozenset()

    def is_direct(self, scope: Mapping[str, Any]) -> bool:
        """Return True if the server port in the ASGI scope is one that this process listens on."""
        _, port = scope.get("server") or ("", None)
        if port not in self._own_ports:
            sockets = psutil.Process().net_connections("tcp")
            self._own_ports = frozenset(sock.laddr.port for sock in sockets if sock.status == psutil.CONN_LISTEN)
        return port in self._own_ports


class RoutedHost(Protocol):
    """Protocol of the host deployment whose routes are served."""

    @property
    def host(self) -> Host:
        """The host that runs this process's conversations."""
        ...

    @property
    def access(self) -> AccessControl:
        """The accepted API keys and origins. If there are no keys, every client is admitted."""
        ...

    async def targets(self) -> list[dict[str, Any]]:
        """Return every replica of the application, as Prometheus HTTP service discovery targets."""
        ...

    async def places(self) -> dict[str, int]:
        """Return the places of the whole system, as `deployments.serving.regions.places_of` does."""
        ...

    async def regions(self) -> dict[str, Any]:
        """Return the systems of all regions, as `RegionDirectory.listing` does."""
        ...


def http_app(served: RoutedHost) -> FastAPI:
    """Return the ASGI application with the routes of one host."""
    web = FastAPI(title="Rejoinder", docs_url=None, redoc_url=None)
    proxy_check = ProxyCheck()

    @web.middleware("http")
    async def close_after_answer(request: Request, respond: RequestResponseEndpoint) -> Response:
        """Let no connection be used again, and let pages of allowed origins read the answer.

        HAProxy would send a later handshake over a connection that is still open. If this node had vanished meanwhile,
        HAProxy would wait for an answer for minutes. A new connection fails in RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S, and
        another host is tried.
        """
        response = preflight(served.access, request) or await respond(request)
        allow_page(served.access, request.headers, response)
        response.headers["connection"] = "close"
        return response

    @web.get("/healthz")
    async def healthz(request: Request, response: Response) -> dict[str, Any]:
        """Return the host's status, its sessions and their limit, and its event-loop lag in ms.

        `problem` says what is wrong with the configuration of the language model, if its server refuses the key, the
        model or the address; otherwise it is null.
        `unreachable` lists the stages that the host cannot reach.
        The status code is 503 if there are any, or if the request came through Serve's Python proxy: HAProxy does not
        reach this host yet. New calls are refused meanwhile.
        """
        direct, lost = proxy_check.is_direct(request.scope), served.host.lost_stages
        response.status_code = 200 if direct and not lost else 503
        problem = served.host.services.hedger.backends.configuration_fault
        status = f"cannot reach {', '.join(lost)}" if lost else "ok"
        return {
            "status": status if direct else "behind Serve's Python proxy",
            "unreachable": lost,
            "problem": str(problem) if problem else None,
            "sessions": served.host.live,
            "max_sessions": served.host.services.settings.host.max_sessions,
            "loop_lag_ms": round(served.host.loop_lag_s * 1000, 1),
        }

    @web.get("/v1/places")
    async def places() -> dict[str, int]:
        """Return the number of hosts of this system, of calls, of places and of free places."""
        return await served.places()

    @web.get("/v1/regions")
    async def regions() -> dict[str, Any]:
        """Return the systems of all regions with their health and places."""
        return await served.regions()

    _add_protected_routes(web, served)
    add_call_routes(web, served, proxy_check.is_direct)
    add_twilio(web, served.host, access=served.access, direct=proxy_check)
    add_talk_page(web)
    _add_conversations(web, served, proxy_check)
    return web


def _add_conversations(web: FastAPI, served: RoutedHost, proxy_check: ProxyCheck) -> None:
    """Add the WebSocket routes: conversations, and a refusal at all other paths. Call this after all other routes."""

    async def realtime(socket: WebSocket) -> None:
        """Run one conversation over the OpenAI Realtime protocol."""
        await _converse(served, socket, proxy_check)

    for path in PATHS:
        web.add_api_websocket_route(path, realtime)
        web.add_api_websocket_route(f"{path}/", realtime)

    @web.websocket("/{path:path}")
    async def elsewhere(socket: WebSocket) -> None:
        """Refuse a WebSocket at any other path: without this route the answer would be 403 without a word."""
        message = f"No WebSocket at {socket.url.path[:200]}. Connect to {PATHS[0]}."
        await socket.send_denial_response(refusal_of(404, "not_found", message))


def _add_protected_routes(web: FastAPI, served: RoutedHost) -> None:
    """Add the routes that need a key if the host has keys."""
    add_stage_routes(web, served.host, served.access)

    @web.post("/v1/realtime/client_secrets")
    async def client_secrets(request: Request) -> Response:
        """Return a short-lived client secret, which a browser uses instead of the key."""
        return await create_secret(served.access, request)

    @web.get("/v1/models", response_model=None)
    async def models(request: Request) -> dict[str, Any] | Response:
        """Return a list with the only model, "rejoinder". Its field `engines` names the engine of each stage.

        If the host has keys, a request needs one.
        """
        client = admitted(served.access, request.headers, Scope.TALK, Scope.METRICS)
        return client if isinstance(client, Response) else {"object": "list", "data": [_model(served)]}

    @web.get("/v1/models/{name:path}", response_model=None)
    async def model(request: Request, name: str) -> dict[str, Any] | Response:
        """Return the model "rejoinder", or an error with status 404 for any other name."""
        client = admitted(served.access, request.headers, Scope.TALK, Scope.METRICS)
        if isinstance(client, Response):
            return client
        if name == MODEL:
            return _model(served)
        message = f"The model '{name[:200]}' does not exist. The only one is '{MODEL}'."
        error = {"message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
        return JSONResponse({"error": error}, status_code=404)

    @web.get("/metrics/targets", response_model=None)
    async def targets(request: Request) -> list[dict[str, Any]] | Response:
        """Return every replica that answers, as Prometheus HTTP service discovery targets.

        If the host has keys, a request needs one with the scope `metrics`.
        """
        client = admitted(served.access, request.headers, Scope.METRICS)
        if isinstance(client, Response):
            return client
        return await served.targets()


def _model(served: RoutedHost) -> dict[str, Any]:
    """Return the model that all requests get, in the form of OpenAI's API, with the engine of each stage."""
    engines = served.host.services.stages.engines
    return {"id": MODEL, "object": "model", "created": 0, "owned_by": "rejoinder", "engines": engines}


async def _converse(served: RoutedHost, socket: WebSocket, proxy_check: ProxyCheck) -> None:
    """Refuse the connection with an HTTP status, or accept it and run the conversation until it ends.

    401, 403, 404 (no journal has the session to resume), 429 and 503 are the usual ones.

    Args:
        served: The host, with its accepted keys.
        socket: The connection, not yet accepted.
        proxy_check: Tells whether the connection came through Serve's Python proxy, which is refused.
    """
    resume = await resume_request(served.access, served.host.keeper, socket.headers, socket.query_params)
    if isinstance(resume, Response):
        await socket.send_denial_response(resume)
        return
    if fault := unserved_handshake(socket.query_params, socket.headers):
        status = 404 if fault.param == "call_id" else 400
        await socket.send_denial_response(refusal_of(status, fault.code, str(fault)))
        return
    client = resume.client if resume else admitted(served.access, socket.headers, Scope.TALK)
    if isinstance(client, Response):
        await socket.send_denial_response(client)
        return
    if not proxy_check.is_direct(socket.scope):
        await socket.send_denial_response(refusal_of(503, "not_ready", NOT_READY, retry_after_s=1.0))
        return
    try:
        with client_place(served.access, client, resumed=bool(resume)), served.host.seat(resumed=bool(resume)):
            await _serve(served.host, socket, client, resume)
    except ClientLimitReached as limit:
        await socket.send_denial_response(limit.refusal)
    except Overloaded as full:
        await socket.send_denial_response(refusal_of(503, "overloaded", str(full), retry_after_s=full.retry_after_s))


async def _serve(host: Host, socket: WebSocket, client: Client, resume: ResumeRequest | None) -> None:
    """Accept the connection of an admitted client and run its conversation, or go on with the one that it resumes."""
    owner = client.key.digest if client.key else ""
    origin = None
    if resume and host.keeper:
        try:
            origin = await host.keeper.claim(resume.token, resume.report)
        except BackendError as fault:
            await socket.send_denial_response(refusal_of(503, "journal_unavailable", str(fault), retry_after_s=1.0))
            return
        if origin is None:
            await socket.send_denial_response(refusal_of(404, "session_not_found", NOT_FOUND))
            return
    offered = socket.scope.get("subprotocols") or []
    await socket.accept("realtime" if "realtime" in offered else None)
    shortcut = socket.scope.get("extensions", {}).get(EXTENSION)
    config = replace(
        started(client.session, socket.query_params),
        drops_replies=drops_replies(socket.headers),
        traceparent=trace_context(socket.headers, socket.query_params),
    )
    await RealtimeSocket(
        socket,
        host=host,
        config=config,
        shortcut=shortcut,
        tenant=client.tenant,
        owner=owner,
        origin=origin,
    ).converse()
