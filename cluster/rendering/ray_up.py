"""Files for Ray's cluster launcher (`ray up`) with its provider for machines of your own, called `local`.

That provider knows one kind of worker. What differs between nodes (labels, GPUs, the environment) is in a folder that
Ray copies to every node, and a script there finds the node's own files by the machine's address.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.description.launch_description import Launch, LaunchDescription
from cluster.rendering.bare import environment_file, start_script
from cluster.rendering.node_plan import NodePlan, plan_nodes
from cluster.rendering.rendered_file import MARK, RenderedFile, yaml_file
from cluster.rendering.serve_config import serve_document

REMOTE = "~/rejoinder-launch"
"""Folder on every node to which `ray up` copies the rendered folder `launch`."""
COPIED = "launch"
"""Rendered folder that `ray up` copies to every node."""
FIND_NODE = "start-node.sh"
"""Script in that folder that starts Ray on any of the nodes."""
SECRETS = "secrets.env"
"""File in that folder with secret variables. `rejoinder launch up` writes it; `render` does not."""
# The second version of Ray's autoscaler forgets a head of the provider `local` after some seconds, and starts no worker
# from then on; it also counts the head as one of the workers to start. Ray 2.60 uses it unless this variable is 0.
_AUTOSCALER: Mapping[str, str] = {"RAY_enable_autoscaler_v2": "0"}


def render_ray_up(launch: Launch, folder: Path) -> Iterator[RenderedFile]:
    """Yield the files for the target `ray-up`: `cluster.yaml`, and the folder `launch` that is copied to every node.

    Args:
        launch: The description with its serve profile.
        folder: Folder that the files will be written to. `cluster.yaml` names it, because `ray up` looks for the folder
            to copy from wherever it is called.

    Raises:
        ConfigError: A group has no addresses, or a stage cannot be placed.
    """
    nodes = plan_nodes(launch.description)
    document = cluster_document(launch.description, nodes, folder.expanduser().resolve() / COPIED)
    yield yaml_file("cluster.yaml", [document], f"{MARK}. Start the cluster: ray up cluster.yaml")
    for file in node_files(launch):
        yield dataclasses.replace(file, path=f"{COPIED}/{file.path}")


def node_files(launch: Launch) -> Iterator[RenderedFile]:
    """Yield the files that every node gets in the folder REMOTE.

    Raises:
        ConfigError: A group has no addresses, or a stage cannot be placed.
    """
    nodes = plan_nodes(launch.description)
    yield yaml_file("ray_config.yaml", [serve_document(launch)], f"{MARK}. The application to deploy.")
    yield RenderedFile(FIND_NODE, find_node_script(nodes), executable=True)
    for node in nodes:
        yield RenderedFile(f"{node.name}/ray.env", environment_file({**node.environment, **_AUTOSCALER}))
        script = start_script(node, launch.description, [f"$folder/../{SECRETS}"])
        yield RenderedFile(f"{node.name}/start-ray.sh", script, executable=True)


def cluster_document(description: LaunchDescription, nodes: Sequence[NodePlan], folder: Path) -> dict[str, Any]:
    """Return the content of `cluster.yaml`.

    Args:
        description: The launch description.
        nodes: The nodes, the head first.
        folder: Folder on this machine that is copied to every node.
    """
    machines, ports = description.machines, description.ports.ephemeral
    head, *workers = [node.address for node in nodes]
    provider: dict[str, Any] = {"type": "local", "head_ip": head, "worker_ips": workers}
    if machines.external_head:
        provider["external_head_ip"] = machines.external_head
    sysctl = f"net.ipv4.ip_local_port_range='{ports.first} {ports.last}'"
    stop = f"{machines.virtualenv}/bin/ray stop"
    start = f"{REMOTE}/{FIND_NODE}"
    return {
        "cluster_name": description.name,
        "provider": provider,
        "auth": {"ssh_user": machines.ssh_user, "ssh_private_key": machines.ssh_private_key},
        # All machines always belong to the cluster.
        "min_workers": len(workers),
        "max_workers": len(workers),
        "file_mounts": {REMOTE: str(folder)},
        "setup_commands": [
            f"sudo -n sysctl -q -w {sysctl} || echo 'Set {sysctl} as root: the firewall expects these ports.' >&2"
        ],
        # Without the words "ray start" in the command, `ray up` warns that nothing starts Ray.
        "head_start_ray_commands": [stop, f": ray start; {start} --autoscaling-config=~/ray_bootstrap_config.yaml"],
        "worker_start_ray_commands": [stop, start],
    }


def find_node_script(nodes: Sequence[NodePlan]) -> str:
    """Return a shell script that runs the start script of the node whose address or name this machine has."""
    lines = [
        "#!/bin/sh",
        f"# {MARK}: start Ray on the node with this machine's address.",
        "set -eu",
        'folder=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)',
        'for name in $(hostname -I) "$(hostname)" "$(hostname -f 2>/dev/null)"; do',
        '  case "$name" in',
        *[f'    {node.address}) exec "$folder/{node.name}/start-ray.sh" "$@" ;;' for node in nodes],
        "  esac",
        "done",
        'echo "None of the addresses of this machine ($(hostname -I)) is in the launch description." >&2',
        "exit 1",
    ]
    return "\n".join(lines) + "\n"
