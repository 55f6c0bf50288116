"""Read from a server over HTTP which engines it runs, and how much memory its replicas use during a run."""

from __future__ import annotations

import asyncio
import time

import httpx2

from loadtest.generator import stage_metrics
from loadtest.scenario.scenario import Scenario
from rejoinder.core.errors import BackendError

HTTP_S = 5.0
"""Timeout of a request in seconds."""

SAMPLES = 40
"""Number of memory samples in the measured time."""

SHORTEST_S = 5.0
"""Shortest period of the memory samples in seconds."""


class ServerView:
    """HTTP client that reads a server's engines and memory."""

    def __init__(self, scenario: Scenario) -> None:
        self._base = scenario.url.replace("ws", "http", 1)
        self._api_key = scenario.api_key
        self._headers = {"Authorization": f"Bearer {scenario.api_key}"}

    def engines(self) -> dict[str, str]:
        """Return the name of each stage's engine, by stage. The result is empty if the server reports no engines.

        Raises:
            BackendError: The server does not answer, or its answer is not a list of models.
        """
        try:
            answer = httpx2.get(f"{self._base}/models", headers=self._headers, timeout=HTTP_S).raise_for_status()
            engines: dict[str, str] = answer.json()["data"][0].get("engines", {})
        except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise BackendError(
                f"{self._base} does not answer ({error}).", "Start it with `rejoinder serve`, or check --url."
            ) from None
        return engines

    def memory_mb(self) -> float | None:
        """Return the resident memory of all replicas in MiB, or None if the server does not report it."""
        try:
            replicas = stage_metrics.read(self._base.removesuffix("/v1"), self._api_key).values()
        except (BackendError, ValueError, KeyError, IndexError, TypeError):
            return None
        bytes_held = sum(replica.memory_mb for replica in replicas) * stage_metrics.MEGABYTE
        return round(bytes_held / 2**20, 1) or None


class MemoryWatch:
    """Sampler of the replicas' memory during a run. Run `run` as a task, and read the samples with `between`."""

    def __init__(self, server: ServerView) -> None:
        self._server = server
        self._samples: list[tuple[float, float]] = []

    async def run(self, start_at: float, span_s: float) -> None:
        """Take samples until cancelled. Return early if the server does not report its memory.

        The period is `span_s` / `SAMPLES`, but at least `SHORTEST_S`.

        Args:
            start_at: Start of the run as Unix time.
            span_s: Time over which `SAMPLES` samples are spread, in seconds.
        """
        while True:
            memory_mb = await asyncio.to_thread(self._server.memory_mb)
            if memory_mb is not None:
                self._samples.append((round(time.time() - start_at, 1), memory_mb))
            elif not self._samples:
                return  # the server does not report its memory
            await asyncio.sleep(max(SHORTEST_S, span_s / SAMPLES))

    def between(self, from_s: float, to_s: float) -> tuple[tuple[float, float], ...]:
        """Return the samples from `from_s` to `to_s` as (seconds after the start of the run, MiB of all replicas).

        Both limits are in seconds after the start of the run. The result is empty if the server does not report its
        memory.
        """
        return tuple(sample for sample in self._samples if from_s <= sample[0] <= to_s)
