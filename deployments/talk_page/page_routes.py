"""HTTP routes of the page at `/`, and the headers that restrict what it may do.

The folder `static` has the page as browsers get it. It is built from the TypeScript source in `web` by `scripts/page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

STATIC = Path(__file__).with_name("static")

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Media type of each kind of file."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        # Also covers WebSockets to the same host and port.
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content Security Policy: only the page's own files run, and it connects only to its own server."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The files have no version in their names. After an update a browser must not mix old and new ones.
    "Cache-Control": "no-cache",
}
"""Headers of every file of the page."""


def add_talk_page(web: FastAPI) -> None:
    """Add a route for each file of the page, and `/` for the page itself. They need no key."""
    for path in sorted(STATIC.iterdir()):
        content = path.read_bytes()
        names = ("/", "/index.html") if path.name == "index.html" else (f"/{path.name}",)
        for name in names:
            _add_file(web, name, content, {**HEADERS, "Content-Type": TYPES[path.suffix]})


def _add_file(web: FastAPI, name: str, content: bytes, headers: Mapping[str, str]) -> None:
    async def file(_: Request) -> Response:
        return Response(content, headers=dict(headers))

    web.add_route(name, file, methods=["GET", "HEAD"], include_in_schema=False)
