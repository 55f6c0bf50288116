"""A real `rejoinder serve` in its own process, and the metrics of its replicas."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cluster.environment import free_port

START_S = 240.0


@dataclass(frozen=True)
class Served:
    """A running system. `url` is the base of its HTTP routes."""

    url: str
    process: subprocess.Popen[bytes]

    def replicas(self, stage: str) -> list[dict[str, str]]:
        """Return the labels of a stage's live replicas, with `target`, the address of their metrics."""
        return [replica for replica in self.census() if replica["stage"] == stage]

    def census(self) -> list[dict[str, str]]:
        """Return the live replicas of all stages. The list may be one second old."""
        found = httpx2.get(f"{self.url}/metrics/targets", timeout=10).json()
        return [{**entry["labels"], "target": entry["targets"][0]} for entry in found]

    def wait_for(self, stage: str, count: int, without: str = "", timeout_s: float = 60.0) -> list[dict[str, str]]:
        """Return a stage's replicas once `count` of them are live, a replica with process id `without` not counted."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            live = [replica for replica in self.replicas(stage) if replica["pid"] != without]
            if len(live) == count:
                return live
            time.sleep(0.2)
        raise TimeoutError(f"{stage} does not have {count} replicas after {timeout_s:g} s")


def metric(target: str, name: str, **labels: str) -> float:
    """Return the sum of the samples of a replica's metric that have these labels, 0 if there is none."""
    text = httpx2.get(f"http://{target}/metrics", timeout=5).text
    total = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items()):
                total += sample.value
    return total


_IN_FLIGHT = re.compile(rb"^rejoinder_requests_in_flight\{[^}]*\} ([0-9.]+)$", re.MULTILINE)


def kill_holder(
    replicas: list[dict[str, str]], timeout_s: float = 30.0, how: signal.Signals = signal.SIGKILL
) -> tuple[str, float]:
    """Send a signal to the first replica that holds a request. Return its process id and the time.

    Some requests take only 100 ms, so the gauges are read over open connections and without a full parse.

    Args:
        replicas: The replicas to watch, from `Served.replicas`.
        timeout_s: Time in seconds for one of them to hold a request.
        how: The signal, by default kill -9.
    """
    deadline = time.monotonic() + timeout_s
    with httpx2.Client(timeout=5) as client:
        while time.monotonic() < deadline:
            for replica in replicas:
                held = _IN_FLIGHT.search(client.get(f"http://{replica['target']}/metrics").content)
                if held and float(held[1]) >= 1:
                    os.kill(int(replica["pid"]), how)
                    return replica["pid"], time.monotonic()
    raise TimeoutError("no replica held a request")


@contextmanager
def serving(
    tmp_path: Path,
    args: dict[str, Any],
    *,
    address: str = "local",
    environment: Mapping[str, str] = os.environ,
    port: int = 0,
    orderly: bool = True,
) -> Iterator[Served]:
    """Run `rejoinder serve` until the block ends. Its output is in the error if it does not start.

    Args:
        tmp_path: Folder for its configuration and log.
        args: The `args` of the application.
        address: The cluster to join, "local" for a head of its own.
        environment: Its environment.
        port: Its HTTP port, 0 for a free one.
        orderly: Stop it with SIGINT. False kills it, because its cluster is about to be killed as well.
    """
    port = port or free_port()
    config = tmp_path / "ray_config.yaml"
    document = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [{"name": "rejoinder", "import_path": "deployments.app:build", "args": args}],
    }
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [sys.executable, "-m", "rejoinder.cli", "serve", str(config), "--address", address]
    log = tmp_path / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        _await_health(process, url, log)
        yield Served(url, process)
    finally:
        process.send_signal(signal.SIGINT if orderly else signal.SIGKILL)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_health(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx2.get(f"{url}/healthz", timeout=2).status_code == 200:
                return
        except httpx2.HTTPError:
            pass  # it does not listen yet
        time.sleep(0.3)
    raise RuntimeError(f"`rejoinder serve` did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
