"""A stand-in for the three machines of a launch description, and for SSH to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cluster.description.launch_description import Launch, read_launch
from cluster.nodes import ClusterNode, NodeState, to_json
from cluster.rendering.rendered_file import RenderedFile
from rejoinder.core.errors import BackendError

HEAD, ONE, TWO = "10.0.0.1", "10.0.0.2", "10.0.0.3"


def described(folder: Path, **more: Any) -> Launch:
    """Write a description of a head and two other machines into a folder, and return its launch.

    Args:
        folder: The folder.
        more: Further keys of the description.
    """
    size = {"cpus": 16, "memory_gb": 32}
    groups = [
        {"name": "head", "role": "head", "addresses": [HEAD], "labels": {"group": "cpu"}, **size},
        {"name": "cpu", "addresses": [ONE, TWO], **size},
    ]
    path = folder / "voice.yaml"
    document = {"name": "voice", "profile": "cpu-cluster", "groups": groups, **more}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return read_launch(path)


def node(number: int, address: str, state: NodeState = NodeState.ALIVE) -> ClusterNode:
    """Return a node as Ray's head reports it. `number` makes its id and its host name."""
    return ClusterNode(
        node_id=f"id-{number}",
        name=f"host-{number}",
        address=address,
        state=state,
        labels={},
        resources={"CPU": 16},
        head=address == HEAD,
    )


@dataclass
class FakeMachines:
    """A stand-in for SSH to machines, whose cluster is `nodes`.

    Attributes:
        nodes: The nodes that the head reports.
        did: Steps in the order in which they happened, such as "start 10.0.0.1".
        scripts: Every script with the address of its machine, in the same order.
        written: Content of the files that were written, by path.
        fails: Address of a machine on which every script fails.
        ray_up: Whether `ray up` has started the head.
        joins: Nodes that the autoscaler starts once it has been told of them.
    """

    nodes: list[ClusterNode] = field(default_factory=list)
    did: list[str] = field(default_factory=list)
    scripts: list[tuple[str, str]] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    fails: str = ""
    ray_up: bool = False
    joins: list[ClusterNode] = field(default_factory=list)

    def run(self, address: str, script: str, timeout_s: float = 0) -> str:
        if address == self.fails:
            raise BackendError(f"{address} fails.")
        self.scripts.append((address, script))
        if "echo ray-up" in script:
            return "ray-up\n" if self.ray_up else ""
        kinds = {"start-ray.sh": "start-ray.sh", "serve deploy": "serve deploy", " drain ": "drain"}
        kinds |= {"serve shutdown": "serve shutdown", "ray stop": "ray stop", "_workers": "autoscaler"}
        self.did += [f"{kind} {address}" for word, kind in kinds.items() if word in script]
        if " drain " in script:
            node_id = script.split(" drain ")[1].split()[0]
            self.nodes = [
                dataclasses.replace(one, state=NodeState.DEAD) if one.node_id == node_id else one for one in self.nodes
            ]
        if "_workers" in script and " add " in script:
            self.nodes = [*self.nodes, *self.joins]
        return to_json(self.nodes)

    def write(self, address: str, folder: str, files: Iterable[RenderedFile]) -> None:
        new = {file.path: file.text for file in files}
        self.written |= new
        self.did.append(f"write {address} {' '.join(sorted(new))}")
