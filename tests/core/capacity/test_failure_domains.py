"""Tests of nodes as failure domains: what remains after nodes have died, and the traffic of a node's interface."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.capacity.failure_domains import NO_TRAFFIC, Overhead, node_traffic, spread
from rejoinder.core.capacity.sizing import NodeType, ReplicaUnit, SizedComponent, Traffic

NODE = NodeType("c8", cores=8, memory_mb=16_000)
HOST = ReplicaUnit("host", slots=100, cores=1, memory_mb=500)
STT = ReplicaUnit("stt", slots=4, cores=1, memory_mb=700)
TRAFFIC = st.builds(Traffic, *[st.floats(0, 1e6)] * 4)


@given(st.integers(1, 40), st.integers(1, 10), st.integers(0, 2))
def test_the_needed_replicas_survive_the_spare_nodes(stt: int, hosts: int, spare: int) -> None:
    """If the spare nodes die, each with as many replicas as a node may have, the needed replicas remain.

    The other nodes can hold them, and all nodes together have room for all replicas in 90% of their cores.
    """
    group, sized = spread(NODE, [SizedComponent(STT, stt, 0), SizedComponent(HOST, hosts, 0)], spare)
    assert group.spare == spare
    for component in sized:
        most = group.most_per_node.get(component.unit.name, component.replicas)
        assert component.replicas - (spare * most if spare else 0) >= component.needed
        assert (group.nodes - spare) * most >= component.needed
        assert component.replicas <= group.nodes * most
    assert sum(component.cores for component in sized) <= group.nodes * NODE.cores * 0.9
    assert group.replicas == {component.unit.name: component.replicas for component in sized}


def test_one_node_may_die() -> None:
    """Seven hosts on nodes with room for seven: two nodes hold seven each. Without a spare node one node is enough."""
    group, (hosts,) = spread(NODE, [SizedComponent(HOST, 7, 0)], 1)
    assert (group.nodes, hosts.replicas, group.most_per_node) == (2, 14, {"host": 7})
    assert spread(NODE, [SizedComponent(HOST, 7, 0)], 0)[0].nodes == 1


def test_the_entry_and_the_head_take_cores() -> None:
    """Cores of HAProxy and of Ray's head are not available to replicas: seven replicas then need a second node."""
    seven = [SizedComponent(HOST, 7, 0)]
    assert spread(NODE, seven, 0, Overhead(entry=1.0))[0].nodes == 2
    assert spread(NODE, seven, 0, Overhead(head=1.0))[0].nodes == 2


def test_gpu_fractions_share_a_card() -> None:
    """Four replicas that each reserve a quarter of a GPU fit on one node with one GPU. Five need two nodes."""
    node = NodeType("g4", cores=16, memory_mb=64_000, gpus=1)
    quarter = ReplicaUnit("stt", 8, 1, 2000, gpus=0.25)
    assert [spread(node, [SizedComponent(quarter, count, 0)], 0)[0].nodes for count in (4, 5)] == [1, 2]


def test_no_replica_needs_no_node() -> None:
    """A plan without replicas has no nodes, and so no spare ones."""
    assert spread(NODE, [], 1)[0].nodes == 0


def test_a_replica_that_fits_nowhere_is_named() -> None:
    """A replica that needs more than a whole node raises ValueError, which names the replica and the node."""
    with pytest.raises(ValueError, match=r"one llm replica .* does not fit into a c8 node"):
        spread(NODE, [SizedComponent(ReplicaUnit("llm", 1, 4, 32_000), 1, 0)], 0)


@given(TRAFFIC, TRAFFIC)
def test_loopback_is_no_network_traffic(edge: Traffic, stage: Traffic) -> None:
    """On a single node only the callers' traffic passes the network interface: all else stays on the node."""
    assert node_traffic(edge, [stage], [], 1) == edge


def test_traffic_between_nodes_counts_in_both_directions() -> None:
    """On two nodes, half of what runs within the cluster crosses, and is received by one node and sent by the other.

    100 kbps from callers and 300 to them, and 200 to a stage: (100 + 0.5 * 600) / 2 in, and (300 + 0.5 * 600) / 2 out.
    A stage on other nodes gets its 200 kbps from the hosts' nodes in full.
    """
    edge, stage = Traffic(100, 300, 10, 30), Traffic(200, 0, 20, 0)
    near = node_traffic(edge, [stage], [], 2)
    assert (near.in_kbps, near.out_kbps) == (200, 300)
    assert (near.in_pps, near.out_pps) == (20, 30)
    far = node_traffic(NO_TRAFFIC, [], [stage], 2)
    assert (far.in_kbps, far.out_kbps) == (0, 100)
