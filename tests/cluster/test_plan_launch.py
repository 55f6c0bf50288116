"""Tests of the launch descriptions of plans, and of what the launch kit renders from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.plan import Bill, configuration
from cluster.plan_launch import description, launch_files, read_site
from rejoinder.core.capacity.failure_domains import spread
from rejoinder.core.capacity.sizing import NodeType
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import ServeFile, parse_serve_file
from tests.cluster.launching.rendering import IMAGES, KEYS
from tests.cluster.launching.test_kuberay import crd, needs_crds
from tests.cluster.test_plan import COMPONENTS

CPU = NodeType("c16", cores=16, memory_mb=64_000, reserve=0.125)
GPU = NodeType("g16", cores=16, memory_mb=64_000, gpus=1, reserve=0.125, gpu="L4")
NEEDED = {"host": 12, "turn_detector": 4, "stt": 12, "llm": 3, "tts": 5}
SIZED = {name: replace(COMPONENTS[name], needed=needed, spare=0) for name, needed in NEEDED.items()}
PODS: dict[str, Any] = {
    "name": "planned",
    "images": IMAGES,
    "models": {"claim": "models"},
    "secrets": [KEYS],
    "kubernetes": {"monitoring_key": {"name": "keys", "key": "metrics"}},
}
MACHINES: dict[str, Any] = {
    "name": "planned",
    "secrets": [{"variable": "REJOINDER_API_KEYS"}],
    "groups": [
        {"name": "cpu", "addresses": [f"10.0.0.{number}" for number in range(1, 10)]},
        {"name": "gpu", "addresses": [f"10.0.1.{number}" for number in range(1, 10)]},
    ],
}
EMULATED = parse_serve_file(
    {"applications": [{"args": {stage: {"engine": "emulated"} for stage in ("stt", "llm", "tts")}}]}
)


@pytest.fixture
def bill() -> Bill:
    """Return a plan of four nodes without GPUs (least: three) and three with GPUs (least: two)."""
    cpu, cpu_parts = spread(CPU, [one for name, one in SIZED.items() if name != "llm"], spare=1)
    gpu, gpu_parts = spread(GPU, [SIZED["llm"]], spare=1)
    parts = {one.unit.name: one for one in (*cpu_parts, *gpu_parts)}
    assert (cpu.nodes, gpu.nodes) == (4, 3)
    least = {name: min(one.replicas, 1 + one.spare) for name, one in parts.items()}
    return Bill(parts, (cpu, gpu), 120, least=least, least_nodes=(3, 2))


def rendered(site: dict[str, Any], bill: Bill) -> dict[str, str]:
    files, notes = launch_files(description(site, bill), configuration(EMULATED, bill, {}), Path("/planned"))
    assert notes == []
    return {file.path: file.text for file in files}


def ray_service(bill: Bill) -> dict[str, Any]:
    """Return the RayService that is rendered from the plan."""
    documents = yaml.safe_load_all(rendered(PODS, bill)["kuberay/ray-service.yaml"])
    return next(one for one in documents if one["kind"] == "RayService")


@needs_crds
def test_the_ray_service_of_a_plan_is_valid(bill: Bill) -> None:
    """The RayService and the RayCluster in it are valid against KubeRay's schemas."""
    service = ray_service(bill)
    crd("rayservices").validate(service)
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "one"}}
    crd("rayclusters").validate(cluster | {"spec": service["spec"]["rayClusterConfig"]})


def test_the_pods_are_the_nodes_of_the_plan(bill: Bill) -> None:
    """One node without GPUs is the head. The others have the plan's minimum and maximum, and whole cores."""
    cluster = ray_service(bill)["spec"]["rayClusterConfig"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert {name: (one["minReplicas"], one["replicas"], one["maxReplicas"]) for name, one in groups.items()} == {
        "cpu": (2, 3, 3),
        "gpu": (2, 3, 3),
    }
    container = groups["gpu"]["template"]["spec"]["containers"][0]
    assert str(container["resources"]["limits"]["cpu"]) == "14"
    assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == "1"


def test_the_replicas_and_the_address_are_deployed(bill: Bill) -> None:
    """The configuration in the RayService has the plan's replicas, spread, and listens for other machines.

    The server that was calibrated listened on the loopback address.
    """
    served = yaml.safe_load(ray_service(bill)["spec"]["serveConfigV2"])
    assert ServeFile().http_options.host == "127.0.0.1"
    assert served["http_options"]["host"] == "0.0.0.0"
    scaling = served["applications"][0]["args"]["stt"]["autoscaling"]
    assert (scaling["min_replicas"], scaling["max_replicas"], scaling["max_replicas_per_node"]) == (5, 16, 4)


def test_ray_up_gets_as_many_machines_as_the_plan_needs(bill: Bill) -> None:
    """With addresses, the files are those of `ray up`: seven machines of eighteen, the first one as the head."""
    files = rendered(MACHINES, bill)
    cluster = yaml.safe_load(files["ray-up/cluster.yaml"])
    assert cluster["provider"]["head_ip"] == "10.0.0.1"
    assert set(cluster["provider"]["worker_ips"]) == {
        *("10.0.0.2", "10.0.0.3", "10.0.0.4"),
        *("10.0.1.1", "10.0.1.2", "10.0.1.3"),
    }
    assert (cluster["min_workers"], cluster["max_workers"]) == (6, 6)


def test_a_plan_on_one_machine_has_no_workers(bill: Bill) -> None:
    """A plan of one node without GPUs renders the head only."""
    alone = replace(bill.groups[0], nodes=1)
    groups = description(PODS, replace(bill, groups=(alone,), least_nodes=()))["groups"]
    assert [group["name"] for group in groups] == ["head"]


def test_too_few_addresses_are_refused(bill: Bill) -> None:
    """The error names the group and how many addresses are missing."""
    site = MACHINES | {"groups": [{"name": "cpu", "addresses": ["10.0.0.1"]}, MACHINES["groups"][1]]}
    with pytest.raises(ConfigError, match="needs 4 machines in group cpu, and 1 addresses") as refused:
        description(site, bill)
    assert (refused.value.field, refused.value.remedy[:6]) == ("--launch groups", "Add 3 ")


def test_the_kind_of_gpu_must_be_known(bill: Bill) -> None:
    """Nodes are labelled with their kind of GPU, so a machine type without it is refused."""
    unknown = replace(bill.groups[1], type=replace(GPU, gpu=""))
    with pytest.raises(ConfigError, match="kind of GPU of g16 is unknown") as refused:
        description(PODS, replace(bill, groups=(bill.groups[0], unknown)))
    assert refused.value.field == "--gpu-node"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ("text", "site.yaml"),
        ({"profile": "cpu-cluster"}, "--launch profile"),
        ({"groups": [{"name": "cpu", "count": 3}]}, "--launch groups"),
        ({"groups": [{"name": "other", "addresses": ["10.0.0.1"]}]}, "--launch groups"),
        ({"groups": 3}, "--launch groups"),
    ],
)
def test_a_wrong_site_is_refused(tmp_path: Path, document: object, field: str) -> None:
    """A site with groups of its own, a profile, or no mapping is refused, with its field."""
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_site(path)
    assert refused.value.field.endswith(field)
