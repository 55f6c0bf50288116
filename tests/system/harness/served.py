"""A real `rejoinder serve` in a process of its own, and what its replicas say about themselves."""

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
    """A running system: `url` is its HTTP base."""

    url: str
    process: subprocess.Popen[bytes]

    def replicas(self, stage: str) -> list[dict[str, str]]:
        """A stage's live replicas: labels, and `target` for their metrics."""
        return [replica for replica in self.census() if replica["stage"] == stage]

    def census(self) -> list[dict[str, str]]:
        """The live replicas of all stages, as of the last second."""
        found = httpx2.get(f"{self.url}/metrics/targets", timeout=10).json()
        return [{**entry["labels"], "target": entry["targets"][0]} for entry in found]

    def wait_for(self, stage: str, count: int, without: str = "", timeout_s: float = 60.0) -> list[dict[str, str]]:
        """Until a stage has `count` live replicas, none of them with process id `without`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            live = [replica for replica in self.replicas(stage) if replica["pid"] != without]
            if len(live) == count:
                return live
            time.sleep(0.2)
        raise TimeoutError(f"{stage} has not {count} replicas after {timeout_s:g} s")


def metric(target: str, name: str, **labels: str) -> float:
    """The value of one sample of a replica's metrics, 0 if it has none such."""
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
    """kill -9 (or `how`) the replica that holds a request, as soon as one does; returns its pid and the instant.

    Some requests last 100 ms, so the gauges are read over open connections and without a full parse.
    """
    deadline = time.monotonic() + timeout_s
    with httpx2.Client(timeout=5) as client:
        while time.monotonic() < deadline:
            for replica in replicas:
                held = _IN_FLIGHT.search(client.get(f"http://{replica['target']}/metrics").content)
                if held and float(held[1]) >= 1:
                    os.kill(int(replica["pid"]), how)
                    return replica["pid"], time.monotonic()
    raise TimeoutError("no replica ever held a request")


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
    """`rejoinder serve` with these `args`, on a free port, until the block ends; its output is shown if it fails.

    Not `orderly`: it is killed in the end, since the cluster that it serves on is about to be killed as well.
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
            pass  # not listening yet
        time.sleep(0.3)
    raise RuntimeError(f"`rejoinder serve` did not come up:\n{log.read_text(encoding='utf-8')[-4000:]}")
