"""What a server tells about itself over HTTP: its engines, and the memory of its replicas while it is loaded."""

from __future__ import annotations

import asyncio
import time

import httpx2

from loadtest.generator import stage_metrics
from loadtest.scenario.scenario import Scenario
from rejoinder.core.errors import BackendError

HTTP_S = 5.0
SAMPLES = 40
SHORTEST_S = 5.0


class ServerView:
    """What the server tells about itself over HTTP."""

    def __init__(self, scenario: Scenario) -> None:
        self._base = scenario.url.replace("ws", "http", 1)
        self._headers = {"Authorization": f"Bearer {scenario.api_key}"}

    def engines(self) -> dict[str, str]:
        """Stage to engine; raises BackendError if the server does not answer."""
        try:
            answer = httpx2.get(f"{self._base}/models", headers=self._headers, timeout=HTTP_S).raise_for_status()
            found: dict[str, str] = answer.json()["data"][0].get("engines", {})
        except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise BackendError(
                f"{self._base} does not answer ({error}).", "Start it with `rejoinder serve`, or check --url."
            ) from None
        return found

    def memory_mb(self) -> float | None:
        """Resident memory of all replicas together; None if the server does not tell."""
        try:
            replicas = stage_metrics.read(self._base.removesuffix("/v1")).values()
        except (BackendError, ValueError, KeyError, IndexError, TypeError):
            return None
        bytes_held = sum(replica.memory_mb for replica in replicas) * stage_metrics.MEGABYTE
        return round(bytes_held / 2**20, 1) or None


class MemoryWatch:
    """Samples the replicas' memory while a run goes on; `run` until cancelled."""

    def __init__(self, server: ServerView) -> None:
        self._server = server
        self._samples: list[tuple[float, float]] = []

    async def run(self, start_at: float, span_s: float) -> None:
        """Some SAMPLES looks in `span_s`; `start_at`: the run's start in wall-clock time."""
        while True:
            found = await asyncio.to_thread(self._server.memory_mb)
            if found is not None:
                self._samples.append((round(time.time() - start_at, 1), found))
            elif not self._samples:
                return  # this server never tells
            await asyncio.sleep(max(SHORTEST_S, span_s / SAMPLES))

    def between(self, from_s: float, to_s: float) -> tuple[tuple[float, float], ...]:
        """(seconds after the start, MiB) while calls were held."""
        return tuple(sample for sample in self._samples if from_s <= sample[0] <= to_s)
