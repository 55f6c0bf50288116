"""Test of the alerts with a real Prometheus, which reads the metrics of every replica."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cluster.environment import free_port
from cluster.monitoring.alerts import Timing, alert_name, as_yaml, configuration, rules
from cluster.monitoring.dashboards import dashboards
from rejoinder.core.capacity.budgets import Metric
from rejoinder.core.measuring.service_curves import STACKS
from tests.system.harness.served import serving
from tests.system.harness.wire_caller import WireCaller, calling

pytestmark = [pytest.mark.prometheus, pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(420)]

TIMING = Timing(window="20s", hold="3s", interval="1s")
CALLERS = 4
FAST_MS, SLOW_MS = 100, 1500
ARGS: dict[str, Any] = {
    stage: {"engine": "emulated", "emulation": {"profile": profile, "tokens": 6}}
    for stage, profile in STACKS["guide-500"].items()
}


@dataclass(frozen=True)
class Prometheus:
    """Client of a running Prometheus at `url`."""

    url: str

    def ask(self, path: str, **query: str) -> Any:
        """Return the field "data" of the answer to a GET of /api/v1/`path` with these query parameters."""
        return httpx2.get(f"{self.url}/api/v1/{path}", params=query, timeout=10).raise_for_status().json()["data"]

    def firing(self) -> set[str]:
        """Return the names of the alerts in state "firing"."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def value(self, expression: str) -> float:
        """Return the current value of a PromQL expression that has at most one result, 0 if it has none."""
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def _found(self, expression: str) -> bool:
        return bool(self.ask("query", query=expression)["result"])

    async def until(self, expression: str, timeout_s: float = 90.0) -> None:
        """Wait until a PromQL expression has a result. Raise TimeoutError after `timeout_s` seconds."""
        async with asyncio.timeout(timeout_s):
            while True:
                if await asyncio.to_thread(self._found, expression):
                    return
                await asyncio.sleep(0.5)


@contextmanager
def scraping(url: str, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the product's alert rules and the system at `url` as its target, until the block ends.

    Its configuration and its data are written to `folder`.
    """
    (folder / "rules.yml").write_text(as_yaml(rules(TIMING)), encoding="utf-8")
    (folder / "prometheus.yml").write_text(as_yaml(configuration(url, "rules.yml", TIMING)), encoding="utf-8")
    port = free_port()
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"]
    with subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], cwd=folder) as process:
        try:
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


async def _talk(caller: WireCaller, question: bytes, silence_ms: int) -> None:
    """Ask the question repeatedly. Turns end after `silence_ms` ms of silence, which delays every answer by as much."""
    detection = {"type": "server_vad", "silence_duration_ms": silence_ms}
    audio = {"input": {"turn_detection": detection}}
    await caller.send(type="session.update", session={"type": "realtime", "audio": audio})
    while True:
        answered = len(caller.of("response.done"))
        caller.say(question)
        await caller.until("response.done", answered + 1)


async def _ask_and_hang_up(url: str, question: bytes) -> None:
    """Ask the question once, and close the connection when the answer has arrived."""
    async with calling(url) as caller:
        caller.say(question)
        await caller.until("response.done")


@asynccontextmanager
async def _talking(url: str, question: bytes, silence_ms: int) -> AsyncIterator[None]:
    """Run CALLERS conversations, each with `_talk`, until the block ends."""

    async def call(number: int) -> None:
        await asyncio.sleep(number * 0.3)
        async with calling(url) as caller:
            await _talk(caller, question, silence_ms)

    running = [asyncio.create_task(call(number)) for number in range(CALLERS)]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def _listening(prometheus: Prometheus) -> None:
    """Wait until Prometheus answers requests."""
    async with asyncio.timeout(60):
        while True:
            try:
                await asyncio.to_thread(prometheus.ask, "alerts")
            except httpx2.HTTPError:
                await asyncio.sleep(0.2)
            else:
                return


def _empty_panels(prometheus: Prometheus) -> list[str]:
    """Return the queries of the dashboards that return no data."""
    queries = [query for dashboard in dashboards(TIMING) for panel in dashboard.panels for query in panel.queries]
    return [query.expression for query in queries if not prometheus.ask("query", query=query.expression)["result"]]


async def test_a_delay_raises_its_alert_and_no_other(tmp_path: Path, question: bytes) -> None:
    """With a median end-to-end time below 1.2 s no alert fires, and Prometheus reads the metrics of every stage.

    Every query of every dashboard returns data.

    If turns end after 1.5 s of silence, the median is between 1.2 and 2 s. Only the alert of the end-to-end time fires,
    because no engine is slow. The alert stops after the calls have ended.
    """
    delayed = alert_name(Metric.END_TO_END)
    with serving(tmp_path, ARGS) as system, scraping(system.url, tmp_path) as prometheus:
        await _listening(prometheus)
        async with _talking(system.url, question, FAST_MS):
            await prometheus.until("rejoinder:turn_seconds:p99 > 0 and sum(rejoinder_turn_seconds_count) > 20")
            # A wrong alert would fire in 5 s: its condition must be met for 3 s, and rules are evaluated every second.
            await asyncio.sleep(5)
            assert prometheus.firing() == set()
            assert prometheus.value("rejoinder:turn_seconds:p50") < 1.2
            assert _empty_panels(prometheus) == []
            assert 0 < prometheus.value("rejoinder:network_rtt_seconds:p50") < 0.15
        await _ask_and_hang_up(system.url, question)
        await prometheus.until('sum(rejoinder_hangups_total{when=~"during_reply|within_5s"}) == 1')
        await prometheus.until("sum(rejoinder_hangup_turns_sum) == 1")
        # An emulated recognizer hears the same words in every turn of the same length.
        assert prometheus.value("sum(rejoinder_repeated_turns_total)") > 0
        stages = prometheus.ask("query", query="up == 1")["result"]
        assert {entry["metric"]["stage"] for entry in stages} >= {"host", "stt", "llm", "tts", "turn_detector"}
        async with _talking(system.url, question, SLOW_MS):
            await prometheus.until(f'ALERTS{{alertname="{delayed}",alertstate="firing"}}')
            assert prometheus.firing() == {delayed}
            assert 1.2 < prometheus.value("rejoinder:turn_seconds:p50") < 2.0
            assert prometheus.value('rejoinder:stage_own_seconds:p50{stage="stt"}') < 0.3
        await prometheus.until(f'absent(ALERTS{{alertname="{delayed}",alertstate="firing"}})')
