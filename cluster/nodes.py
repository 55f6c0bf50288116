"""The nodes of a running Ray cluster: which there are, in which state, and how to drain one.

`rejoinder launch` runs this module on the head over SSH. `python -m cluster.nodes HOST:PORT` prints the nodes as JSON,
and `python -m cluster.nodes HOST:PORT drain NODE_ID SECONDS` drains a node that will be stopped after that time.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.errors import BackendError, ConfigError, RejoinderError


class NodeState(Enum):
    """State of a node as Ray's head sees it.

    Attributes:
        ALIVE: The node runs.
        DRAINING: The node runs, but gets no new replicas, and its replicas end.
        DEAD: The node was stopped, or does not answer.
    """

    ALIVE = "alive"
    DRAINING = "draining"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node of a Ray cluster.

    Attributes:
        node_id: Its id in hexadecimal digits. A node that is started again has a new one.
        name: Its host name.
        address: Its IP address.
        state: Its state, as of about a second ago.
        labels: Its labels, by key.
        resources: Amount of each of its resources, such as CPU.
        head: True for the node with Ray's head.
    """

    node_id: str
    name: str
    address: str
    state: NodeState
    labels: dict[str, str]
    resources: dict[str, float]
    head: bool


def cluster_nodes(address: str) -> list[ClusterNode]:
    """Return all nodes of the cluster whose head is at `address` (HOST:PORT), also those that have died.

    Raises:
        BackendError: The head does not answer or refuses the token.
    """
    from ray.exceptions import RayError

    from deployments.serving.compat import ray_nodes

    try:
        found = ray_nodes(address)
    except (RayError, ConnectionError) as error:
        raise BackendError(
            f"the Ray head at {address} does not answer ({' '.join(str(error).split())[:200]}).",
            "Check the address, that the head runs, and RAY_AUTH_TOKEN.",
        ) from None
    return [_node(node_id, entry) for node_id, entry in found]


def drain(address: str, name: str, within_s: float) -> ClusterNode:
    """Ask Ray to drain a node: new replicas go elsewhere, and those on the node are replaced and end.

    The node keeps running until it is stopped.

    Args:
        address: HOST:PORT of the cluster's head.
        name: Host name, IP address or id of the node.
        within_s: Seconds until the node will be stopped.

    Returns:
        The node.

    Raises:
        ConfigError: There is no such live node, or it is the head.
        BackendError: The head does not answer, or refuses to drain the node.
    """
    from deployments.serving.compat import drain_ray_node

    node = pick(cluster_nodes(address), name)
    if why := drain_ray_node(address, node.node_id, within_s):
        raise BackendError(f"Ray does not drain {node.name}: {why}.")
    return node


def pick(nodes: list[ClusterNode], name: str) -> ClusterNode:
    """Return the live node with a host name, IP address or id, which must not be the head.

    Raises:
        ConfigError: There is no such node, or it is the head.
    """
    live = [node for node in nodes if node.state is not NodeState.DEAD]
    node = next((node for node in live if name in (node.name, node.address, node.node_id)), None)
    if node is None:
        names = ", ".join(sorted(node.name for node in live if not node.head)) or "none"
        raise ConfigError(f"there is no live node {name!r}.", f"Name one of: {names}.", field="NODE")
    if node.head:
        remedy = "Stop the whole cluster instead: `rejoinder launch down`."
        raise ConfigError(f"{name} is the head, without which the cluster ends.", remedy, field="NODE")
    return node


def _node(node_id: str, entry: object) -> ClusterNode:
    from ray.core.generated.gcs_pb2 import GcsNodeInfo, NodeSnapshot

    assert isinstance(entry, GcsNodeInfo)
    dead = entry.state == GcsNodeInfo.GcsNodeState.DEAD
    draining = entry.state_snapshot.state == NodeSnapshot.State.DRAINING
    return ClusterNode(
        node_id=node_id,
        name=entry.node_manager_hostname,
        address=entry.node_manager_address,
        state=NodeState.DEAD if dead else NodeState.DRAINING if draining else NodeState.ALIVE,
        labels=dict(entry.labels),
        resources=dict(entry.resources_total),
        head=entry.is_head_node,
    )


def to_json(nodes: list[ClusterNode]) -> str:
    """Return the nodes as a JSON list of objects, whose keys are the attributes of `ClusterNode`."""
    return json.dumps([{**dataclasses.asdict(node), "state": node.state.value} for node in nodes])


def from_json(text: str) -> list[ClusterNode]:
    """Return the nodes that `to_json` wrote as `text`."""
    return [ClusterNode(**{**node, "state": NodeState(node["state"])}) for node in json.loads(text)]


def main(arguments: list[str]) -> None:
    """Print the nodes or drain one, as the module's docstring says. Exit with a message and status 1 after an error."""
    address, *rest = arguments
    try:
        if rest:
            _, node_id, within_s = rest
            drain(address, node_id, float(within_s))
        else:
            print(to_json(cluster_nodes(address)))
    except RejoinderError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
