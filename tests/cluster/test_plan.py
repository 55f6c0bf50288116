"""Tests of the configuration that `rejoinder plan` writes.

It is valid, has the planned sizes, and keeps all other settings of the calibration.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config_file import read_config
from cluster.plan import Bill, StageEngine, configuration, node_groups, write
from rejoinder.core.capacity.failure_domains import spread
from rejoinder.core.capacity.sizing import NodeType, ReplicaUnit, SizedComponent
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import ServeFile, parse_serve_file

CPU = NodeType("c16", cores=16, memory_mb=64_000)
GPU = NodeType("g16", cores=16, memory_mb=64_000, gpus=1)
COMPONENTS = {
    "host": SizedComponent(ReplicaUnit("host", 120, 0.9, 600), needed=4, spare=1),
    "turn_detector": SizedComponent(ReplicaUnit("turn_detector", 8, 1, 400), needed=2, spare=1),
    "stt": SizedComponent(ReplicaUnit("stt", 4, 1, 900), needed=6, spare=1),
    "llm": SizedComponent(ReplicaUnit("llm", 16, 1, 4000, gpus=0.5), needed=3, spare=1),
    "tts": SizedComponent(ReplicaUnit("tts", 2, 0.5, 700), needed=5, spare=1),
}
BASE = parse_serve_file(
    {"applications": [{"args": {"stt": {"model": "whisper-base", "threads": 1}, "conversation": {"context_turns": 6}}}]}
)

ENGINES = {"llm": StageEngine({"engine": "vllm", "model": "m", "vllm": {"gpu_memory_utilization": 0.5}}, "published")}


@pytest.fixture
def planned() -> Bill:
    gpu, on_gpu = spread(GPU, [COMPONENTS["llm"]], 1)
    cpu, on_cpu = spread(CPU, [sized for name, sized in COMPONENTS.items() if name != "llm"], 1)
    return Bill({sized.unit.name: sized for sized in (*on_cpu, *on_gpu)}, (cpu, gpu), 120)


def test_the_written_configuration_has_the_plans_sizes(planned: Bill, tmp_path: Path) -> None:
    """Replicas, maximum sessions and resources in the written file are those of the plan.

    All other settings are those of the calibration.
    """
    document = configuration(BASE, planned, ENGINES)
    path, _ = write(tmp_path, document, node_groups(planned), ["llm: published, guide section 1.5"])
    read = read_config(path).application.args
    sizes = {name: sized.replicas for name, sized in planned.components.items()}
    assert read.host.max_sessions == 120
    assert {name: getattr(read, name).autoscaling.min_replicas for name in sizes} == sizes
    assert {name: getattr(read, name).autoscaling.max_replicas for name in sizes} == sizes
    assert (read.stt.resources.num_cpus, read.stt.resources.memory_mb) == (1, 900)
    assert (read.llm.engine, read.llm.resources.num_gpus) == ("vllm", 0.5)
    assert read.llm.resources.label_selector == {"group": "gpu"}
    assert read.tts.resources.label_selector == {"group": "cpu"}
    assert (read.stt.threads, read.conversation.context_turns) == (1, 6)
    assert "# llm: published, guide section 1.5" in path.read_text()


def test_it_is_a_file_for_serve_itself(planned: Bill) -> None:
    """The written file has the keys that `serve deploy` requires: name, route prefix and import path."""
    application = configuration(ServeFile(), planned, ENGINES)["applications"][0]
    assert (application["import_path"], application["route_prefix"]) == ("deployments.app:build", "/")


def test_requests_wait_in_the_replica_that_has_slots(planned: Bill) -> None:
    """The written file lets Serve send a replica at least four requests per slot.

    Otherwise requests could wait in the router while a slot is free.
    """
    args = configuration(ServeFile(), planned, ENGINES)["applications"][0]["args"]
    assert (args["llm"]["max_ongoing_requests"], args["tts"]["max_ongoing_requests"]) == (64, 64)


def test_groups_contain_their_components(planned: Bill) -> None:
    """Components with a GPU are in the node group with GPUs, all others in the one without. Spare nodes are counted."""
    cpu, gpu = node_groups(planned)["groups"]
    assert gpu["replicas"] == {"llm": 5}
    assert (gpu["nodes"], gpu["of_which_spare"], gpu["labels"]) == (3, 1, {"group": "gpu"})
    assert set(cpu["replicas"]) == {"host", "turn_detector", "stt", "tts"}


def test_replicas_are_spread_over_the_nodes(planned: Bill) -> None:
    """The written file limits the replicas of each stage on one node, so that the death of a node takes no more.

    Three replicas of the language model on two of three nodes with a GPU each: two on a node, five in all.
    """
    args = configuration(ServeFile(), planned, ENGINES)["applications"][0]["args"]
    scaling = args["llm"]["autoscaling"]
    assert (scaling["min_replicas"], scaling["max_replicas_per_node"]) == (5, 2)


def test_a_gpu_for_a_server_elsewhere_is_refused(planned: Bill) -> None:
    """A plan that reserves GPUs for an engine that computes on its own server cannot be written: it is invalid."""
    hosted = StageEngine({"engine": "openai_api", "base_url": "http://127.0.0.1:8001/v1"})
    with pytest.raises(ConfigError, match="engine openai_api computes on its own server"):
        configuration(ServeFile(), planned, {"llm": hosted})
