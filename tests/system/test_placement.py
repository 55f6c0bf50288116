"""Tests of placement: the replica of each stage runs on a node that the settings allow, or is not started.

The cluster has a node with GPUs that are declared and not real. The options of the deployments follow from the settings
as in the product. Only the stages' classes are replaced by small ones (see the module `census`).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from cluster.environment import free_port
from tests.system.harness.nodes import ROOT, Node, head, worker
from tests.system.harness.watching import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

# One replica. Stages that reserve GPUs have emulated engines: settings allow GPUs only for these and for vLLM, and
# emulated engines run without a real GPU.
ONE = {"min_replicas": 1, "max_replicas": 1}
PLACED: dict[str, Any] = {
    "vad": {"resources": {"num_cpus": 0.25}},
    "turn_detector": {"resources": {"num_cpus": 0.5, "custom": {"edge": 1}}},
    "stt": {"engine": "emulated", "resources": {"num_cpus": 0, "num_gpus": 0.25}},
    "llm": {"engine": "emulated", "resources": {"num_cpus": 0, "num_gpus": 1}, "autoscaling": ONE},
    "tts": {"engine": "emulated", "resources": {"num_cpus": 0, "num_gpus": 0.25, "label_selector": {"tier": "gpu"}}},
}
NOWHERE: dict[str, Any] = {
    "stt": {"resources": {"label_selector": {"tier": "moon"}}},
    "llm": {"engine": "emulated", "resources": {"num_gpus": 3}, "autoscaling": ONE},
    "tts": {"resources": {"custom": {"unobtainium": 1}}},
}
# Seconds that a test waits before it concludes that a replica is not placed. A placement takes at most a few seconds.
PENDING_S = 5.0


@dataclass(frozen=True)
class Field:
    """The cluster: its head node and the base URL of its Serve."""

    node: Node
    url: str

    def get(self, path: str = "") -> Any:
        """Return the JSON document that the application `census` serves at `path`."""
        return httpx2.get(f"{self.url}/census/{path}", timeout=20).json()


@pytest.fixture(scope="module")
def field() -> Iterator[Field]:
    port = free_port()
    gpu = ["--num-gpus=2", "--labels=tier=gpu"]
    with head(['--resources={"edge": 1}']) as first, worker(first, options=gpu):
        with _deploying(first, port, "census", PLACED) as process:
            assert process.wait(90) == 0
        yield Field(first, f"http://127.0.0.1:{port}")


def _deploying(node: Node, port: int, app: str, args: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start a process that deploys the application of the module `census` for these settings, with the name `app`."""
    program = (
        "import ray; from ray import serve; from tests.system.harness.census import build;"
        f"ray.init(address={node.address!r}, log_to_driver=False);"
        f"serve.start(http_options={{'host': '127.0.0.1', 'port': {port}}});"
        f"serve.run(build({args!r}), name={app!r}, route_prefix='/{app}')"
    )
    return subprocess.Popen([sys.executable, "-c", program], env=dict(node.environment), cwd=ROOT)


@pytest.fixture(scope="module")
def census(field: Field) -> dict[str, dict[str, Any]]:
    wait_until(lambda: httpx2.get(f"{field.url}/census/", timeout=20).status_code == 200, 30, "the census")
    found: dict[str, dict[str, Any]] = field.get()
    return found


def test_each_stage_gets_the_cpu_that_it_declares(census: dict[str, dict[str, Any]]) -> None:
    """Each replica gets the CPU share that its settings state."""
    assert {name: where["resources"].get("CPU", 0) for name, where in census.items()} == {
        "vad": 0.25,
        "turn_detector": 0.5,
        "stt": 0,
        "llm": 0,
        "tts": 0,
    }


def test_gpu_fractions_become_visible_devices(census: dict[str, dict[str, Any]]) -> None:
    """Two stages with a quarter of a GPU share one, a stage with one GPU gets the other, and other stages see none."""
    assert {name: where["resources"].get("GPU", 0) for name, where in census.items()} == {
        "vad": 0,
        "turn_detector": 0,
        "stt": 0.25,
        "llm": 1,
        "tts": 0.25,
    }
    assert census["stt"]["gpus"] == census["tts"]["gpus"]
    assert {census["stt"]["gpus"], census["llm"]["gpus"]} == {"0", "1"}
    assert census["vad"]["gpus"] == census["turn_detector"]["gpus"] == ""


def test_custom_resources_and_labels_choose_the_node(field: Field, census: dict[str, dict[str, Any]]) -> None:
    """Stages that need a label, a GPU or a custom resource are placed on the node that has it."""
    labels = {node["node"]: node["labels"] for node in field.get("nodes")}
    on_gpu_node = {name for name, where in census.items() if labels[where["node"]].get("tier") == "gpu"}
    assert {"stt", "llm", "tts"} <= on_gpu_node
    assert "turn_detector" not in on_gpu_node
    assert census["turn_detector"]["resources"]["edge"] == 1


def test_a_replica_without_a_fitting_node_stays_pending(field: Field) -> None:
    """If no node has the needed label, GPUs or custom resource, the replica is not started, not even elsewhere."""
    port = int(field.url.rpartition(":")[2])
    process = _deploying(field.node, port, "nowhere", NOWHERE)
    try:
        wait_until(lambda: set(NOWHERE) <= field.get("status/nowhere").keys(), 60, "the deployments")
        time.sleep(PENDING_S)  # a wrong placement would happen in this time
        states = field.get("status/nowhere")
        assert {name: states[name] for name in NOWHERE} == {name: {"STARTING": 1} for name in NOWHERE}
    finally:
        process.kill()
        process.wait()
