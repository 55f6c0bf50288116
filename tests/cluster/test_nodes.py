"""Tests of the list of a cluster's nodes and of the choice of one to drain."""

from __future__ import annotations

import pytest
from ray.core.generated.gcs_pb2 import GcsNodeInfo, NodeSnapshot
from ray.exceptions import RaySystemError

from cluster import nodes
from cluster.nodes import ClusterNode, NodeState, cluster_nodes, drain, from_json, pick, to_json
from deployments.serving import compat
from rejoinder.core.errors import BackendError, ConfigError


def _entry(name: str, address: str, *, head: bool = False, dead: bool = False, draining: bool = False) -> GcsNodeInfo:
    """Return Ray's entry of a node."""
    entry = GcsNodeInfo(node_manager_hostname=name, node_manager_address=address, is_head_node=head)
    entry.state = GcsNodeInfo.GcsNodeState.DEAD if dead else GcsNodeInfo.GcsNodeState.ALIVE
    entry.state_snapshot.state = NodeSnapshot.State.DRAINING if draining else NodeSnapshot.State.IDLE
    entry.resources_total["CPU"] = 4
    entry.labels["group"] = "cpu"
    return entry


@pytest.fixture(autouse=True)
def _a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        ("01", _entry("head", "10.0.0.1", head=True)),
        ("02", _entry("one", "10.0.0.2", draining=True)),
        ("03", _entry("two", "10.0.0.3", dead=True)),
        ("04", _entry("two", "10.0.0.3")),
    ]
    monkeypatch.setattr(compat, "ray_nodes", lambda address: found)


def test_a_node_has_its_name_state_and_resources() -> None:
    """Nodes are alive, draining or dead, also a node that is alive again under a new id; all survive JSON."""
    found = cluster_nodes("10.0.0.1:6379")
    assert [(node.name, node.state.value, node.head) for node in found] == [
        ("head", "alive", True),
        ("one", "draining", False),
        ("two", "dead", False),
        ("two", "alive", False),
    ]
    assert found[3] == ClusterNode(
        node_id="04",
        name="two",
        address="10.0.0.3",
        state=NodeState.ALIVE,
        labels={"group": "cpu"},
        resources={"CPU": 4.0},
        head=False,
    )
    assert from_json(to_json(found)) == found


@pytest.mark.parametrize("name", ["two", "10.0.0.3"])
def test_the_live_node_is_drained(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A node is found by host name or address. Of two with the same name, the live one is drained."""
    asked: list[tuple[str, str, float]] = []

    def accept(gcs_address: str, node_id: str, within_s: float) -> str:
        asked.append((gcs_address, node_id, within_s))
        return ""

    monkeypatch.setattr(compat, "drain_ray_node", accept)
    assert drain("10.0.0.1:6379", name, 60).node_id == "04"
    assert asked == [("10.0.0.1:6379", "04", 60)]


def test_a_refused_drain_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If Ray refuses to drain a node, BackendError has Ray's reason."""
    monkeypatch.setattr(compat, "drain_ray_node", lambda *_: "it is not idle")
    with pytest.raises(BackendError, match="does not drain two: it is not idle"):
        drain("10.0.0.1:6379", "two", 60)


def test_only_a_live_worker_can_be_picked() -> None:
    """An unknown node and the head are refused. The error names the nodes that can be drained."""
    found = cluster_nodes("10.0.0.1:6379")
    with pytest.raises(ConfigError, match=r"no live node 'three'\. Name one of: one, two"):
        pick(found, "three")
    with pytest.raises(ConfigError, match="launch down"):
        pick(found, "head")
    with pytest.raises(ConfigError, match="Name one of: none"):
        pick([node for node in found if node.head], "one")


def test_a_head_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the head does not answer, BackendError names its address and the variable with the token."""

    def fail(address: str) -> None:
        raise RaySystemError("connection refused\nmore")

    monkeypatch.setattr(compat, "ray_nodes", fail)
    with pytest.raises(BackendError, match=r"10\.0\.0\.1:6379 does not answer .*RAY_AUTH_TOKEN"):
        nodes.cluster_nodes("10.0.0.1:6379")


def test_the_module_prints_and_drains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As a program, the module prints the nodes as JSON, and drains the node whose id it is given."""
    asked: list[str] = []
    monkeypatch.setattr(compat, "drain_ray_node", lambda _, node_id, within_s: asked.append(f"{node_id} {within_s}"))
    nodes.main(["10.0.0.1:6379"])
    assert from_json(capsys.readouterr().out) == cluster_nodes("10.0.0.1:6379")
    nodes.main(["10.0.0.1:6379", "drain", "02", "30"])
    assert asked == ["02 30.0"]
    with pytest.raises(SystemExit, match="no live node '03'"):
        nodes.main(["10.0.0.1:6379", "drain", "03", "30"])
