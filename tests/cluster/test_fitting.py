"""Tests of whether replicas fit on the nodes of a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.fitting import Demand, NodeOffer, demands, matches, misfits
from rejoinder.core.settings.settings import parse_settings
from rejoinder.core.settings.stages import Autoscaling, Resources

SMALL = NodeOffer("small", {"CPU": 2.0}, {"group": "cpu"})
CARD = NodeOffer("card", {"CPU": 8.0, "GPU": 2.0}, {"group": "gpu"})


def fields(nodes: list[NodeOffer], **args: Any) -> list[str]:
    """Return the settings that the errors name, with the given `args` of the application."""
    return [error.field for error in misfits(demands(parse_settings(args)), nodes)]


def test_the_defaults_fit_on_two_cores() -> None:
    """The default settings fit on a machine with two cores."""
    assert fields([SMALL]) == []


def test_a_label_that_no_node_has_is_named_with_the_existing_ones() -> None:
    """The error names the setting, the missing label and the labels that nodes have."""
    settings = parse_settings({"stt": {"resources": {"label_selector": {"group": "gpus"}}}})
    (error,) = misfits(demands(settings), [SMALL, CARD])
    assert error.field == "args.stt.resources.label_selector"
    assert "group=gpus" in error.message
    assert "group=cpu, group=gpu" in error.message


@pytest.mark.parametrize(
    ("resources", "setting"),
    [
        ({"num_cpus": 3}, "num_cpus"),
        ({"memory_mb": 10}, "memory_mb"),
        ({"custom": {"licence": 1}}, "custom"),
        ({"num_cpus": 9, "label_selector": {"group": "gpu"}}, "num_cpus"),
    ],
)
def test_a_replica_that_is_larger_than_every_node_is_refused(resources: dict[str, Any], setting: str) -> None:
    """The error names the resource of which no suitable node has enough."""
    nodes = [SMALL, CARD] if "label_selector" in resources else [SMALL]
    assert fields(nodes, tts={"resources": resources}) == [f"args.tts.resources.{setting}"]


def test_a_gpu_without_a_node_that_has_one_is_refused() -> None:
    """A language model in vLLM with a GPU does not fit on a cluster without GPUs."""
    llm = {"engine": "vllm", "model": "a/b", "resources": {"num_gpus": 1}}
    assert fields([SMALL], llm=llm) == ["args.llm.resources.num_gpus"]
    assert fields([SMALL, CARD], llm=llm) == []


def test_replicas_share_the_nodes() -> None:
    """If each replica fits alone but not all together, the error names the number of replicas."""
    two = {"autoscaling": {"min_replicas": 2, "max_replicas": 2}}
    assert fields([SMALL], stt={"resources": {"num_cpus": 1.5}, **two}) == ["args.stt.autoscaling.min_replicas"]
    assert fields([SMALL, SMALL], stt={"resources": {"num_cpus": 1.5}, **two}) == []


def test_a_deployment_that_is_switched_on_counts() -> None:
    """A voice activity detection in a deployment of its own, the answer cache and a backup model need room too."""
    big = {"resources": {"num_cpus": 3}}
    assert fields([SMALL], vad={"placement": "deployment", **big}) == ["args.vad.resources.num_cpus"]
    assert fields([SMALL], llm_backup=big) == ["args.llm_backup.resources.num_cpus"]


def test_replicas_with_a_selector_are_placed_first() -> None:
    """A replica that may run on one node only is not crowded out by one that may run anywhere."""
    anywhere = Demand("stt", Resources(num_cpus=2), Autoscaling())
    bound = Demand("tts", Resources(num_cpus=2, label_selector={"group": "cpu"}), Autoscaling())
    assert misfits([anywhere, bound], [SMALL, NodeOffer("other", {"CPU": 2.0})]) == []


@pytest.mark.parametrize(
    ("condition", "fits"),
    [("cpu", True), ("gpu", False), ("!gpu", True), ("!cpu", False), ("in(cpu, gpu)", True), ("!in(cpu,gpu)", False)],
)
def test_the_conditions_of_ray(condition: str, fits: bool) -> None:
    """A label selector may name a value, exclude one, or name a set. A missing label equals no value."""
    assert matches({"group": condition}, {"group": "cpu"}) is fits
    assert matches({"group": condition}, {}) is condition.startswith("!")
