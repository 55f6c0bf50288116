"""The HTTP surface of a host: conversations over WebSocket, and what operators and stock clients ask beside them.

Admission and authentication happen before a WebSocket is upgraded, so a refusal is an honest HTTP status with a retry
hint, never a connection that opens and dies. So is the refusal of what came through Serve's Python proxy,
to which HAProxy falls back while it knows of no host: the proxy saturates at a few dozen conversations, and a socket
that once went through it stays there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import psutil
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response

from actors.host import Host
from deployments.transports.call_protocol import EXTENSION
from deployments.transports.realtime_ws import RealtimeSocket
from rejoinder.core.errors import Overloaded
from rejoinder.core.reply.answer_cache import tenant_of

MODEL = "rejoinder"
NOT_READY = (
    "HAProxy does not reach this host yet, and Serve's Python proxy cannot carry audio. Try again in a second; if it "
    "stays so, start every node with RAY_SERVE_ENABLE_HA_PROXY=1."
)


class ProxyCheck:
    """Tells what reached this process directly from what Serve's Python proxy handed over."""

    def __init__(self) -> None:
        self._own_ports: frozenset[int] = frozenset()

    def reached(self, scope: Mapping[str, Any]) -> bool:
        """Whether an ASGI scope belongs to a connection that this process accepted itself."""
        _, port = scope.get("server") or ("", None)
        if port not in self._own_ports:
            ends = psutil.Process().net_connections("tcp")
            self._own_ports = frozenset(end.laddr.port for end in ends if end.status == psutil.CONN_LISTEN)
        return port in self._own_ports


class RoutedHost(Protocol):
    """The host deployment as its surface sees it."""

    @property
    def host(self) -> Host: ...
    @property
    def keys(self) -> frozenset[str]:
        """API keys; empty admits everybody."""
        ...

    async def targets(self) -> list[dict[str, Any]]: ...


def http_app(served: RoutedHost) -> FastAPI:
    """The routes of one host."""
    web = FastAPI(title="Rejoinder", docs_url=None, redoc_url=None)
    door = ProxyCheck()

    @web.websocket("/v1/realtime")
    @web.websocket("/realtime")
    async def realtime(socket: WebSocket) -> None:
        """One conversation over OpenAI Realtime."""
        await _converse(served, socket, door)

    @web.get("/healthz")
    async def healthz(request: Request, response: Response) -> dict[str, Any]:
        """Alive, and how busy; 503 while HAProxy does not bring its requests here by itself."""
        direct = door.reached(request.scope)
        response.status_code = 200 if direct else 503
        return {
            "status": "ok" if direct else "behind Serve's Python proxy",
            "sessions": served.host.live,
            "max_sessions": served.host.services.settings.host.max_sessions,
            "loop_lag_ms": round(served.host.loop_lag_s * 1000, 1),
        }

    @web.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model we serve is the whole conversation; the engines behind it are an extra field."""
        engines = served.host.services.stages.engines
        entry = {"id": MODEL, "object": "model", "created": 0, "owned_by": "rejoinder", "engines": engines}
        return {"object": "list", "data": [entry]}

    @web.get("/metrics/targets")
    async def targets() -> list[dict[str, Any]]:
        """Every replica of every deployment, as Prometheus HTTP service discovery."""
        return await served.targets()

    return web


async def _converse(served: RoutedHost, socket: WebSocket, door: ProxyCheck) -> None:
    key = known_key(served.keys, socket.headers)
    if key is None:
        await socket.send_denial_response(_refusal(401, "invalid_api_key", "Missing or unknown API key."))
        return
    if not door.reached(socket.scope):
        refusal = _refusal(503, "not_ready", NOT_READY)
        refusal.headers["Retry-After"] = "1"
        await socket.send_denial_response(refusal)
        return
    try:
        with served.host.seat():
            offered = socket.scope.get("subprotocols") or []
            await socket.accept("realtime" if "realtime" in offered else None)
            model = socket.query_params.get("model") or MODEL
            shortcut = socket.scope.get("extensions", {}).get(EXTENSION)
            await RealtimeSocket(
                socket, host=served.host, model=model, shortcut=shortcut, tenant=tenant_of(key)
            ).converse()
    except Overloaded as full:
        refusal = _refusal(503, "overloaded", str(full))
        refusal.headers["Retry-After"] = f"{full.retry_after_s:.0f}"
        await socket.send_denial_response(refusal)


def known_key(keys: frozenset[str], headers: Mapping[str, str]) -> str | None:
    """The known key that a request carries, as a bearer token or as a browser's subprotocol; None if it carries none.

    Without keys everybody is admitted, as "".
    """
    if not keys:
        return ""
    bearer = headers.get("authorization", "").removeprefix("Bearer ").strip()
    offered = [part.strip() for part in headers.get("sec-websocket-protocol", "").split(",")]
    candidates = [bearer, *(part.removeprefix("openai-insecure-api-key.") for part in offered)]
    return next((key for key in candidates if key in keys), None)


def _refusal(status: int, code: str, message: str) -> Response:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": code}}, status_code=status)
