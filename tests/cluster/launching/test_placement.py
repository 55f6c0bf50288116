"""Tests of the placement of stages on node groups, and of the messages for what cannot be placed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.description.launch_description import Launch, read_launch
from cluster.description.placement import check_room, place
from cluster.fitting import matches
from cluster.rendering.serve_config import serve_document
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import parse_serve_file

Groups = list[dict[str, Any]]
NODE = {"cpus": 8, "memory_gb": 16}
STAGES = ["host", "turn_detector", "stt", "llm", "tts"]


def launch(folder: Path, groups: Groups, args: dict[str, Any] | None = None) -> Launch:
    """Return a launch of these groups, each with NODE's size by default, and of a profile with these `args`."""
    (folder / "profile.yaml").write_text(yaml.safe_dump({"applications": [{"args": args or {}}]}), encoding="utf-8")
    groups = [NODE | group for group in groups]
    document = {"name": "voice", "profile": "profile.yaml", "groups": groups}
    (folder / "voice.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return read_launch(folder / "voice.yaml")


HEAD: dict[str, Any] = {"name": "head", "role": "head"}


@pytest.mark.parametrize(
    ("condition", "accepted"),
    [
        ("gpu", "gpu"),
        ("in(gpu,cpu)", "gpu cpu"),
        ("in(gpu, cpu)", "gpu cpu"),
        ("!gpu", "cpu none"),
        ("!in(gpu,cpu)", "none"),
    ],
)
def test_a_selector_means_what_ray_makes_of_it(condition: str, accepted: str) -> None:
    """`selects` follows Ray's conditions on a label: a value, a list, and negations, which a missing label meets."""
    nodes: dict[str, dict[str, str]] = {"gpu": {"group": "gpu"}, "cpu": {"group": "cpu"}, "none": {}}
    assert [name for name, labels in nodes.items() if matches({"group": condition}, labels)] == accepted.split()


def test_stages_run_on_the_groups_that_list_them(tmp_path: Path) -> None:
    """A stage selects its group's label; a stage in two groups selects either; a stage's own selector stays."""
    groups = [
        HEAD,
        {"name": "a", "stages": ["host", "stt"]},
        {"name": "b", "stages": ["stt", "llm", "tts"], "count": 2},
    ]
    args = {"turn_detector": {"resources": {"label_selector": {"group": "a"}}}}
    assert place(launch(tmp_path, groups, args)) == {
        "host": {"group": "a"},
        "turn_detector": {"group": "a"},
        "stt": {"group": "in(a,b)"},
        "llm": {"group": "b"},
        "tts": {"group": "b"},
    }


def test_without_lists_stages_run_anywhere(tmp_path: Path) -> None:
    """If no group lists stages and the profile selects no labels, the stages have no selector."""
    assert place(launch(tmp_path, [HEAD])) == {stage: {} for stage in STAGES}


def test_a_gpu_is_selected_together_with_the_group(tmp_path: Path) -> None:
    """A replica with a GPU selects the kind of card, as its profile says, and also the group that lists it."""
    groups = [HEAD, {"name": "a", "stages": STAGES, "gpu": {"type": "L4"}, "count": 2}]
    args = {"llm": {"engine": "vllm", "model": "Qwen/Qwen3-8B", "vllm": {"gpu": "l4"}}}
    assert place(launch(tmp_path, groups, args))["llm"] == {"ray.io/accelerator-type": "L4", "group": "a"}


def test_the_deployed_profile_has_the_placement(tmp_path: Path) -> None:
    """The rendered profile has each stage's selector and the model folder, keeps other settings, and is complete.

    `serve deploy` needs the application's name, route and import path, which the profile here leaves out.
    """
    groups = [HEAD, {"name": "a", "stages": STAGES}]
    document = serve_document(launch(tmp_path, groups, {"stt": {"threads": 3, "resources": {"num_cpus": 2}}}))
    application = document["applications"][0]
    assert {"name", "route_prefix", "import_path"} <= application.keys()
    assert application["args"]["stt"] == {"threads": 3, "resources": {"num_cpus": 2, "label_selector": {"group": "a"}}}
    assert application["args"]["models"] == {"directory": "/models"}
    assert parse_serve_file(document).application.args.host.resources.label_selector == {"group": "a"}


def test_room_is_counted_per_group(tmp_path: Path) -> None:
    """The minimum of replicas must fit the groups' largest numbers of nodes; a maximum that does not is only noted."""
    groups = [HEAD, {"name": "a", "stages": STAGES, "max": 2}]
    llm = {"resources": {"num_cpus": 6}, "autoscaling": {"min_replicas": 2, "max_replicas": 2}}
    assert check_room(launch(tmp_path, groups, {"llm": llm})) == []
    more = {"resources": {"num_cpus": 6}, "autoscaling": {"min_replicas": 2, "max_replicas": 3}}
    (note,) = check_room(launch(tmp_path, groups, {"llm": more}))
    assert "need 18.4 CPUs, and a have 16" in note


GPU_LLM = {"engine": "vllm", "model": "Qwen/Qwen3-8B", "vllm": {"gpu": "l4"}}
MISTAKES: list[tuple[Groups, dict[str, Any], str, str]] = [
    (
        [HEAD, {"name": "a", "stages": STAGES[1:]}],
        {},
        "groups",
        "no group lists host",
    ),
    (
        [HEAD, {"name": "a", "stages": [*STAGES, "vad"]}],
        {},
        "groups.1.stages",
        "enable it in the profile (vad.placement: deployment)",
    ),
    (
        [HEAD, {"name": "a", "stages": STAGES}],
        {"stt": {"resources": {"label_selector": {"group": "fast"}}}},
        "groups.1.stages",
        "label_selector group=fast in the profile does not select it",
    ),
    (
        [HEAD, {"name": "a"}],
        {"stt": {"resources": {"label_selector": {"group": "fast"}}}},
        "args.stt.resources.label_selector",
        "which no group has (head: group=head; a: group=a)",
    ),
    (
        [HEAD, {"name": "a", "gpu": {"type": "A100"}}],
        {"llm": GPU_LLM},
        "args.llm.resources.label_selector",
        "ray.io/accelerator-type=L4, which no group has",
    ),
    (
        [HEAD, {"name": "a", "gpu": {"type": "L4"}}],
        {"llm": {**GPU_LLM, "vllm": {"gpu": "l4", "tensor_parallel_size": 2}}},
        "args.llm.resources",
        "needs 0.1 CPUs and 2 GPUs, more than a node of a has",
    ),
    (
        [HEAD, {"name": "a", "gpu": {"type": "L4"}}],
        {"llm": GPU_LLM},
        "groups",
        "min_replicas of llm need 2 GPUs, and a have 1",
    ),
    (
        [HEAD, {"name": "a", "stages": STAGES}],
        {"tts": {"resources": {"num_cpus": 9}}},
        "args.tts.resources",
        "needs 9 CPUs, more than a node of a has",
    ),
    (
        [HEAD, {"name": "a", "stages": STAGES}],
        {"llm": {"resources": {"num_cpus": 4}}, "tts": {"resources": {"num_cpus": 1}}},
        "groups",
        "need 9.3 CPUs, and a have 8",
    ),
    (
        [HEAD, {"name": "a", "stages": ["host", "tts"]}, {"name": "b", "stages": ["stt", "llm", "turn_detector"]}],
        {"llm": {"resources": {"num_cpus": 5}}},
        "groups",
        "min_replicas of turn_detector, stt, llm need 10.2 CPUs, and b have 8",
    ),
]


@pytest.mark.parametrize(
    ("groups", "args", "field", "message"), MISTAKES, ids=[mistake[3][:40] for mistake in MISTAKES]
)
def test_what_cannot_be_placed_is_named(
    tmp_path: Path, groups: Groups, args: dict[str, Any], *, field: str, message: str
) -> None:
    """A stage without a node, and groups without room, are refused with the field, the numbers and the fix."""
    with pytest.raises(ConfigError) as caught:
        check_room(launch(tmp_path, groups, args))
    assert (caught.value.field, message in str(caught.value), bool(caught.value.remedy)) == (field, True, True), str(
        caught.value
    )


def test_stages_that_share_a_group_are_counted_together(tmp_path: Path) -> None:
    """Two stages that fit their groups alone, but not together with a third that can run on either, are refused."""
    groups = [HEAD, {"name": "a", "stages": STAGES}, {"name": "b", "stages": ["stt", "tts"]}]
    args = {"stt": {"resources": {"num_cpus": 8}}, "tts": {"resources": {"num_cpus": 8}}}
    with pytest.raises(ConfigError, match=r"need 16\.4 CPUs, and a, b have 16"):
        check_room(launch(tmp_path, groups, args))
