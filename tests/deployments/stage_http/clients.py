"""A host with fake stages behind the HTTP application, and the unmodified openai-python client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai

from deployments.serving.http_routes import http_app
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.access.api_keys import parse_keys
from tests.actors.stage_play import Play
from tests.loadtest.callers.server import Served, running


@asynccontextmanager
async def serving(play: Play, keys: str = "") -> AsyncIterator[str]:
    """Run the HTTP application with the fake stages of `play`. Yield its base URL, which ends with /v1.

    `keys` are the accepted API keys, separated by commas. If there are none, a client needs no key.
    """
    access = AccessControl(parse_keys(keys, "KEYS") if keys else ())
    async with play.open() as host, running(http_app(Served(host, access)), lifespan="off") as address:
        yield f"http://{address}/v1"


def client(base_url: str, key: str = "none") -> openai.AsyncOpenAI:
    """Return openai-python's client. It repeats nothing, so that a test sees every refusal."""
    return openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0)
