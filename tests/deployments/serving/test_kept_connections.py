"""Test that HAProxy cannot use a connection to a host for more than one request."""

from __future__ import annotations

import httpx2
import pytest

from deployments.serving.http_routes import http_app
from tests.actors.stage_play import Play
from tests.loadtest.callers.server import Served


@pytest.mark.parametrize("path", ["/v1/places", "/unknown"])
async def test_an_answer_closes_its_connection(path: str) -> None:
    """Every answer, also one with an error, tells HAProxy to close the connection instead of using it again."""
    async with Play().open() as host:
        app = http_app(Served(host))
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://host") as client:
            answer = await client.get(path)
    assert answer.headers["connection"] == "close"
