"""Calls outlive the listener of a host that drains.

Serve drains a host behind HAProxy in two steps: it closes the host's listener, so that HAProxy takes new calls to
others, and then waits for the requests under way. It closes the listener by stopping uvicorn, and uvicorn, when it
stops, hangs up every WebSocket at once (close code 1012): a host that autoscaling removed lost all its calls (Ray Serve
2.60, uvicorn 0.54). So a WebSocket here ignores uvicorn's wish. It ends with its call, and at the latest when Serve's
`graceful_shutdown_timeout_s` is over.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from rejoinder.core.errors import ConfigError


def outlive_the_listener() -> None:
    """From now on uvicorn's shutdown leaves every WebSocket of this process open. Raises ConfigError if this uvicorn
    cannot be told.
    """
    protocol: Any = AutoWebSocketsProtocol
    if not hasattr(protocol, "shutdown"):
        remedy = "Install the uvicorn of constraints.txt: with another one a draining host loses its calls."
        raise ConfigError("uvicorn's WebSocket protocol has no shutdown() to override.", remedy, field="uvicorn")
    protocol.shutdown = _go_on


def _go_on(_protocol: object) -> None:
    """Serve waits for the requests under way, of which an open WebSocket is one."""
