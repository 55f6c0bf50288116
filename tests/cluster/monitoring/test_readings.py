"""Tests of reading the metrics of a whole system over HTTP, and of what is said if nothing answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Response

from cluster.environment import free_port
from cluster.monitoring.readings import read_system
from deployments.serving.metrics import MetricsPort, ReplicaMetrics
from rejoinder.core.errors import BackendError, ConfigError
from tests.loadtest.callers.server import running


@asynccontextmanager
async def system(*targets: str, status: int = 200, body: str = "") -> AsyncIterator[str]:
    """Serve the lists of a host with these addresses of replicas, all of them of the stage tts. Yield the URL.

    With another `status` or a `body`, the list of targets is answered with these.
    """
    app = FastAPI()

    @app.get("/metrics/targets", response_model=None)
    async def listed() -> Any:
        if status != 200 or body:
            return Response(body, status)
        return [
            {"targets": [target], "labels": {"stage": "tts", "replica": f"r{number}"}}
            for number, target in enumerate(targets)
        ]

    @app.get("/v1/places")
    async def places() -> dict[str, int]:
        return {"hosts": 1, "sessions": 3, "max_sessions": 64, "free": 61}

    async with running(app, lifespan="off") as address:
        yield f"http://{address}"


async def test_the_pages_of_all_replicas_are_read() -> None:
    """A replica that does not answer is named, and the others are read."""
    port = MetricsPort("127.0.0.1")
    ReplicaMetrics(port.registry, "tts").in_flight.inc(2)
    async with system(port.target, f"127.0.0.1:{free_port()}") as url:
        found = await read_system(f"{url}/")
    assert found.silent == ("r1",)
    assert found.places["free"] == 61
    page = found.replicas["r0"]
    assert page.stage == "tts"
    assert page.values["rejoinder_requests_in_flight"][frozenset({("stage", "tts")})] == 2
    assert page.values["process_cpu_seconds_total"][frozenset()] > 0


async def test_no_replica_answers() -> None:
    """If none of the replicas that the host lists answers, the error says from where they can be reached."""
    async with system(f"127.0.0.1:{free_port()}") as url:
        with pytest.raises(BackendError, match="lists 1 replicas, and none of them answers"):
            await read_system(url)


async def test_nothing_answers() -> None:
    """If nobody listens at the address, the error names it."""
    with pytest.raises(BackendError, match=r"does not answer.*rejoinder serve"):
        await read_system(f"http://127.0.0.1:{free_port()}")


async def test_another_server_answers() -> None:
    """A server that answers with a page instead of a list is not one of ours."""
    async with system(body="<html>") as url:
        with pytest.raises(BackendError, match="does not answer"):
            await read_system(url)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_is_missing(status: int) -> None:
    """If the host wants a key, the error names the environment variable for it."""
    async with system(status=status) as url:
        with pytest.raises(ConfigError, match=rf"answers {status}.*scope metrics.*REJOINDER_API_KEY"):
            await read_system(url, "wrong")


@pytest.mark.parametrize("url", ["voice.example", "ws://voice.example/v1"])
async def test_an_address_that_is_not_http_is_refused(url: str) -> None:
    """Only http and https addresses have metrics."""
    with pytest.raises(ConfigError, match="not an HTTP address"):
        await read_system(url)
