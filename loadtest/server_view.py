"""What a server tells about itself over HTTP: its engines, and the memory of its replicas while it is loaded."""

from __future__ import annotations

import asyncio
import time

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from loadtest.scenario import Scenario
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
            root = self._base.removesuffix("/v1")
            targets = httpx2.get(f"{root}/metrics/targets", headers=self._headers, timeout=HTTP_S).json()
            pages = [httpx2.get(f"http://{entry['targets'][0]}/metrics", timeout=HTTP_S).text for entry in targets]
        except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError):
            return None
        return round(sum(_resident_bytes(page) for page in pages) / 2**20, 1) or None


def _resident_bytes(page: str) -> float:
    for family in text_string_to_metric_families(page):
        if family.name == "process_resident_memory_bytes":
            return float(family.samples[0].value)
    return 0.0


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
