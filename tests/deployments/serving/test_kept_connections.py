"""Test that HAProxy cannot use a connection to a host for more than one request."""

from __future__ import annotations

from typing import cast

import httpx2
import pytest

from deployments.serving.http_routes import RoutedHost, http_app
from rejoinder.core.access.access_control import AccessControl


class PlacesOnly:
    """A stand-in for a host that answers the one route of the test."""

    access = AccessControl()

    async def places(self) -> dict[str, int]:
        return {"free": 3}


@pytest.mark.parametrize("path", ["/v1/places", "/unknown"])
async def test_an_answer_closes_its_connection(path: str) -> None:
    """Every answer, also one with an error, tells HAProxy to close the connection instead of using it again."""
    app = http_app(cast(RoutedHost, PlacesOnly()))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://host") as client:
        answer = await client.get(path)
    assert answer.headers["connection"] == "close"
