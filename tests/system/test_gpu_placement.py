"""Tests of GPU placement: a vLLM replica runs only on a node with its kind of GPU and gets as many as configured.

The GPUs are declared to Ray and not real. The options of the deployments follow from the settings as in the product.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from cluster.environment import free_port
from rejoinder.core.capacity.gpu_profiles import GPU_PROFILES
from rejoinder.core.settings.stages import ACCELERATOR_LABEL
from tests.system.harness.nodes import ROOT, Node, head, worker
from tests.system.harness.watching import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

CARDS = ("l4", "t4")
ONE = {"min_replicas": 1, "max_replicas": 1}
# Seconds that a test waits before it concludes that a replica is not placed. A placement takes at most a few seconds.
PENDING_S = 5.0


def vllm_on(gpu: str, count: int = 1) -> dict[str, Any]:
    """Return the settings of an application with one vLLM replica on `count` GPUs of this kind."""
    vllm = {"gpu": gpu, "tensor_parallel_size": count}
    return {"llm": {"engine": "vllm", "vllm": vllm, "resources": {"num_cpus": 0}, "autoscaling": ONE}}


@dataclass(frozen=True)
class Field:
    """A cluster with a head node without GPUs and, for each kind of GPU in CARDS, a node with two of them.

    `port` is the HTTP port of its Serve.
    """

    node: Node
    port: int

    def deploy(self, app: str, args: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Start a process that deploys the application of the module `census` with these settings as `app`."""
        program = (
            "import ray; from ray import serve; from tests.system.harness.census import build;"
            f"ray.init(address={self.node.address!r}, log_to_driver=False);"
            f"serve.start(http_options={{'host': '127.0.0.1', 'port': {self.port}}});"
            f"serve.run(build({args!r}), name={app!r}, route_prefix='/{app}')"
        )
        return subprocess.Popen([sys.executable, "-c", program], env=dict(self.node.environment), cwd=ROOT)

    def doctor(self, folder: Path, args: dict[str, Any]) -> dict[str, str]:
        """Return the lines that `rejoinder doctor` prints for these settings on this cluster, by name of the check.

        The configuration is written to `folder`.
        """
        config = folder / "ray_config.yaml"
        document = {"applications": [{"name": "rejoinder", "import_path": "deployments.app:build", "args": args}]}
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        command = [sys.executable, "-m", "rejoinder.cli", "doctor", str(config), "--address", self.node.address]
        environment = {**self.node.environment, "COLUMNS": "500"}
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        return {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("│")}

    def get(self, path: str) -> Any:
        """Return the JSON document that the cluster's Serve returns for an HTTP path, given without the first slash."""
        return httpx2.get(f"http://127.0.0.1:{self.port}/{path}", timeout=20).json()

    def census(self, app: str) -> dict[str, Any]:
        """Return where the language model of application `app` runs.

        The keys are "node" (its id), "resources", "gpus" (the visible GPUs) and "labels" (those of the node).
        """
        url = f"http://127.0.0.1:{self.port}/{app}/"
        wait_until(lambda: httpx2.get(url, timeout=20).status_code == 200, 30, "the census")
        where: dict[str, Any] = self.get(f"{app}/")["llm"]
        labels = next(node["labels"] for node in self.get(f"{app}/nodes") if node["node"] == where["node"])
        return {**where, "labels": labels}


@pytest.fixture(scope="module")
def field() -> Iterator[Field]:
    first, second = ([f"--labels={ACCELERATOR_LABEL}={GPU_PROFILES[card].accelerator}"] for card in CARDS)  # type: ignore[index]
    with (
        head() as node,
        worker(node, options=["--num-gpus=2", *first]),
        worker(node, options=["--num-gpus=2", *second]),
    ):
        yield Field(node, free_port())


@pytest.mark.parametrize("card", CARDS)
def test_a_replica_gets_its_kind_of_gpu(field: Field, card: str) -> None:
    """A replica with two GPUs runs on the node with the label of its kind of GPU and sees both GPUs."""
    assert field.deploy(card, vllm_on(card, 2)).wait(90) == 0
    where = field.census(card)
    assert where["labels"][ACCELERATOR_LABEL] == card.upper()
    assert where["resources"]["GPU"] == 2
    assert where["gpus"] == "0,1"


def test_the_doctor_counts_the_gpus_of_the_cluster(field: Field, tmp_path: Path) -> None:
    """`rejoinder doctor --address` passes if the cluster has the GPUs of the settings.

    If not, its check of the GPUs fails and states which GPUs the cluster has.
    """
    rows = {card: field.doctor(tmp_path, vllm_on(card, 2)) for card in ("l4", "h100")}
    assert "3 nodes" in rows["l4"]["cluster"]
    assert "ok" in rows["l4"]["GPUs for llm"]
    assert "room for 1 replicas of 2 x L4" in rows["l4"]["GPUs for llm"]
    assert "fail" in rows["h100"]["GPUs for llm"]
    assert "2 x L4; " in rows["h100"]["GPUs for llm"]
    assert "llm.vllm.gpu: l4" in rows["h100"]["GPUs for llm"]


@pytest.mark.parametrize(("gpu", "count"), [("h100", 1), ("l4", 4)], ids=["unknown kind", "too many"])
def test_a_replica_without_a_fitting_node_stays_pending(field: Field, gpu: str, count: int) -> None:
    """If no node has the kind of GPU, or not enough of them, the replica is not started, not even on another kind."""
    process = field.deploy(f"nowhere-{gpu}", vllm_on(gpu, count))
    try:
        status = f"l4/status/nowhere-{gpu}"
        wait_until(lambda: "llm" in field.get(status), 60, "the deployment")
        time.sleep(PENDING_S)  # a wrong placement would happen in this time
        assert field.get(status)["llm"] == {"STARTING": 1}
    finally:
        process.kill()
        process.wait()
