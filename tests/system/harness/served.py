"""A real `rejoinder serve` in its own process, its replicas and their metrics, for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cluster.environment import free_port

START_S = 240.0
CENSUS_S = 10.0
SMALL_LLM = "smollm2-135m-instruct"
"""Language model of the served systems, unless a test names another: tests need tokens soon, not good answers."""


@dataclass(frozen=True)
class Served:
    """A running `rejoinder serve`, with its process and the base URL of its HTTP routes.

    Attributes:
        headers: HTTP headers with an API key, if the server requires one.
    """

    url: str
    process: subprocess.Popen[bytes]
    headers: dict[str, str] = field(default_factory=dict)

    def replicas(self, stage: str) -> list[dict[str, str]]:
        """Return the labels of each live replica of a stage, for example `pid` and `node`.

        The additional label `target` is the HOST:PORT of the replica's metrics.
        """
        return [replica for replica in self.census() if replica["stage"] == stage]

    def census(self) -> list[dict[str, str]]:
        """Return the live replicas of all stages, as of the last second.

        While Serve removes a host, HAProxy may answer 503 for a moment. The request is then repeated for up to 10 s.
        """
        deadline = time.monotonic() + CENSUS_S
        while True:
            response = httpx2.get(f"{self.url}/metrics/targets", headers=self.headers, timeout=10)
            if response.status_code == 200 or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        entries = response.raise_for_status().json()
        return [{**entry["labels"], "target": entry["targets"][0]} for entry in entries]

    def wait_for(self, stage: str, count: int, without: str = "", timeout_s: float = 60.0) -> list[dict[str, str]]:
        """Wait until exactly `count` replicas of a stage are live. Return the labels of their metrics, one dict each.

        A replica with the process id `without` is not counted. Raise TimeoutError after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            live = [replica for replica in self.replicas(stage) if replica["pid"] != without]
            if len(live) == count:
                return live
            time.sleep(0.2)
        raise TimeoutError(f"{stage} does not have {count} replicas after {timeout_s:g} s")


def metric(target: str, name: str, **labels: str) -> float:
    """Return the value of a replica's metric, summed over all samples with these labels, 0 if there are none.

    `target` is the HOST:PORT of the replica's metrics.
    """
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
    """Wait until a replica works on a request, and send a signal to it.

    Return the process id of the replica and the monotonic time of the signal in seconds.

    Some requests take only 100 ms. To see them, the metrics are read over open connections and only one is parsed.
    Raise TimeoutError if no replica works on a request in time.

    Args:
        replicas: The replicas to watch, from `Served.replicas`.
        timeout_s: Maximum time in seconds until one of the replicas works on a request.
        how: The signal, by default SIGKILL.
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
    within: Sequence[str] = (),
) -> Iterator[Served]:
    """Run `rejoinder serve` until the block ends. Raise RuntimeError with its output if it does not start.

    Args:
        tmp_path: Folder for the configuration and the log.
        args: The settings of the application. The language model is SMALL_LLM if they name none.
        address: Address of the cluster to join, or "local" to start a new one.
        environment: Environment variables of the process.
        port: HTTP port, 0 for a free one.
        orderly: True to stop the process with SIGINT. False to kill it, if its cluster is to be killed too.
        within: Words of a command that executes the command after it, such as `unshare`.
    """
    port = port or free_port()
    config = tmp_path / "ray_config.yaml"
    document = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {
                "name": "rejoinder",
                "import_path": "deployments.app:build",
                "args": args | {"llm": {"model": SMALL_LLM, **args.get("llm", {})}},
            }
        ],
    }
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [*within, sys.executable, "-m", "rejoinder.cli", "serve", str(config), "--address", address]
    log = tmp_path / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"{'https' if 'tls' in args else 'http'}://127.0.0.1:{port}"
        await_health(process, url, log)
        key = environment.get("REJOINDER_API_KEYS", "").split(",")[0].strip()
        yield Served(url, process, {"Authorization": f"Bearer {key}"} if key else {})
    finally:
        stop_serving(process, orderly)


def stop_serving(process: subprocess.Popen[bytes], orderly: bool) -> None:
    """Stop a `rejoinder serve` with SIGINT, or kill it if `orderly` is False or it does not end within 60 s."""
    process.send_signal(signal.SIGINT if orderly else signal.SIGKILL)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def await_health(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until the server at `url` is healthy. Raise RuntimeError with the end of `log` if it does not start."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx2.get(f"{url}/healthz", timeout=2, verify=False).status_code == 200:
                return
        except httpx2.HTTPError:
            pass  # the server does not listen yet
        time.sleep(0.3)
    raise RuntimeError(f"`rejoinder serve` did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
