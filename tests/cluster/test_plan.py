"""From sizes to files: the written configuration is valid, holds the plan's sizes, and keeps what was calibrated."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.launch import read_config
from cluster.plan import Bill, StageEngine, bill, configuration, node_groups, write
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


@pytest.fixture
def planned() -> Bill:
    return bill(COMPONENTS, CPU, GPU, spare=1, per_host=120)


def test_the_written_configuration_holds_the_plan(planned: Bill, tmp_path: Path) -> None:
    """The file is read back by the launcher; replicas, admission and resources are the plan's, the rest the base's."""
    engines = {
        "llm": StageEngine({"engine": "openai_api", "base_url": "http://vllm:8000/v1", "model": "m"}, "published")
    }
    document = configuration(BASE, planned, engines)
    path, _ = write(tmp_path, document, node_groups(planned), ["llm: published, guide section 1.5"])
    read = read_config(path).application.args
    assert (read.host.max_sessions, read.host.autoscaling.min_replicas, read.host.autoscaling.max_replicas) == (
        120,
        5,
        5,
    )
    assert (read.stt.autoscaling.min_replicas, read.stt.resources.num_cpus, read.stt.resources.memory_mb) == (7, 1, 900)
    assert (read.llm.engine, read.llm.resources.num_gpus, read.llm.autoscaling.min_replicas) == ("openai_api", 0.5, 4)
    assert read.llm.resources.label_selector == {"group": "gpu"}
    assert read.tts.resources.label_selector == {"group": "cpu"}
    assert (read.stt.threads, read.conversation.context_turns) == (1, 6)
    assert "# llm: published, guide section 1.5" in path.read_text()


def test_it_is_a_file_for_serve_itself(planned: Bill) -> None:
    """What `serve deploy` needs beside our settings is written out: name, prefix and import path."""
    application = configuration(ServeFile(), planned, {})["applications"][0]
    assert (application["import_path"], application["route_prefix"]) == ("deployments.app:build", "/")


def test_replicas_wait_only_where_slots_are(planned: Bill) -> None:
    """A replica takes on at least four requests a slot, so that Serve's router never holds what a slot could take."""
    args = configuration(ServeFile(), planned, {})["applications"][0]["args"]
    assert (args["llm"]["max_ongoing_requests"], args["tts"]["max_ongoing_requests"]) == (64, 64)


def test_groups_hold_their_components(planned: Bill) -> None:
    """Components that want a GPU are on the GPU group, the others on the other; spare nodes are counted and named."""
    cpu, gpu = node_groups(planned)["groups"]
    assert gpu["replicas"] == {"llm": 4}
    assert (gpu["nodes"], gpu["of_which_spare"], gpu["labels"]) == (3, 1, {"group": "gpu"})
    assert set(cpu["replicas"]) == {"host", "turn_detector", "stt", "tts"}


def test_a_gpu_must_come_from_somewhere() -> None:
    """A component that wants a GPU without a node type that has one is refused with the option."""
    with pytest.raises(ConfigError, match="--gpu-node"):
        bill(COMPONENTS, CPU, None, spare=1, per_host=120)


def test_a_component_that_fits_nowhere_is_named() -> None:
    """A replica larger than its node is refused with the option to change."""
    with pytest.raises(ConfigError, match=r"--cpu-node.*one (stt|host|tts|turn_detector) replica"):
        bill(COMPONENTS, NodeType("c1", 0.5, 500), GPU, spare=0, per_host=120)
