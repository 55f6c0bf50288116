"""Origin check of browsers: which web pages may open a connection.

A browser lets any page open a WebSocket to any address that it reaches, such as a server on the user's own machine. It
says which page did it in the header Origin. Other clients send no Origin.
"""

from __future__ import annotations

from collections.abc import Collection

_DEFAULT_PORTS = {"http": "80", "https": "443"}


def is_allowed(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Return True if a request may be served.

    Args:
        origin: The header Origin of the request; None if it has none, because it is not from a browser.
        host: The header Host of the request.
        allowed: Further origins that are allowed, in lower case, or "*" for all.
    """
    if origin is None or "*" in allowed:
        return True
    origin = origin.lower()
    if origin in allowed:
        return True
    scheme, separator, address = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    if not separator or port is None or not host:
        return False
    return _with_port(address, port) == _with_port(host.lower(), port)


def _with_port(address: str, port: str) -> str:
    """Return HOST:PORT for an address whose port may be left out. An IPv6 address stands in brackets."""
    name, _, given = address.rpartition(":")
    return address if name and given.isdecimal() else f"{address}:{port}"
