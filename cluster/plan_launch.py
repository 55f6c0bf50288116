"""The launch description of a plan, from which the launch kit renders a RayService or the files of `ray up`.

The plan knows the node groups. Images, secrets, volumes and addresses are the user's: they come from a site file, which
is a launch description without `profile`, whose `groups` have addresses only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.config_file import read_yaml
from cluster.description.checks import check_launch
from cluster.description.launch_description import Launch, Target, parse_description
from cluster.plan import CPU_GROUP, GPU_GROUP, GROUP_LABEL, Bill
from cluster.rendering.rendered_file import RenderedFile, yaml_file
from cluster.rendering.targets import render_files
from rejoinder.core.capacity.sizing import NodeGroup, NodeType
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import parse_serve_file

DESCRIPTION, PROFILE = "launch.yaml", "ray_config.yaml"
HEAD = "head"
GIB_MB = 1024**3 / 1e6

MEMORY_RESERVE = 0.1
"""Share of a machine's memory that is left to the operating system and Kubernetes."""


def read_site(path: Path) -> dict[str, Any]:
    """Return the content of a site file.

    Raises:
        ConfigError: It cannot be read, is not a mapping, has a profile, or has other groups than addresses of machines.
    """
    site = read_yaml(path)
    if not isinstance(site, dict):
        raise ConfigError("is not a mapping.", "Write a launch description without groups.", field=str(path))
    if "profile" in site:
        raise ConfigError("the plan writes the profile.", "Remove it.", field="--launch profile")
    groups = site.get("groups", [])
    for group in groups if isinstance(groups, list) else [groups]:
        if (
            not isinstance(group, dict)
            or group.keys() != {"name", "addresses"}
            or group["name"] not in (CPU_GROUP, GPU_GROUP)
            or not isinstance(group["addresses"], list)
        ):
            raise ConfigError(
                f"{group!r} is not the addresses of a group.",
                "The plan makes the groups. Write {name: cpu, addresses: [ADDRESS, ...]} (or gpu) for machines, and "
                "no groups for Kubernetes.",
                field="--launch groups",
            )
    return site


def description(site: Mapping[str, Any], bill: Bill) -> dict[str, Any]:
    """Return the launch description of a plan.

    One node of the group without GPUs is Ray's head, as the plan assumes. A pod gets what the plan uses of a machine:
    its cores and memory without the part that is left to the operating system.

    Args:
        site: Content of the site file.
        bill: The plan.

    Raises:
        ConfigError: There are too few addresses, or the kind of GPU is unknown.
    """
    addresses = {group["name"]: group["addresses"] for group in site.get("groups", [])}
    least = bill.least_nodes or tuple(group.nodes for group in bill.groups)
    groups: list[dict[str, Any]] = []
    for group, low in zip(bill.groups, least, strict=True):
        name = GPU_GROUP if group.type.gpus else CPU_GROUP
        node = _node(group.type, pods=not addresses)
        workers = group.nodes - (name == CPU_GROUP)
        head: dict[str, Any] = {"count": 1}
        rest: dict[str, Any] = {"min": low - group.nodes + workers, "count": workers, "max": workers}
        if addresses:
            machines = _machines(group, name, addresses.get(name, []))
            head, rest = {"addresses": machines[:1]}, {"addresses": machines[group.nodes - workers :]}
        if name == CPU_GROUP:
            groups.append({"name": HEAD, "role": "head", **head, **node, "labels": {GROUP_LABEL: CPU_GROUP}})
        if workers:
            groups.append({"name": name, **rest, **node})
    return {**site, "profile": PROFILE, "groups": groups}


def _machines(group: NodeGroup, name: str, addresses: Sequence[str]) -> Sequence[str]:
    if len(addresses) < group.nodes:
        raise ConfigError(
            f"the plan needs {group.nodes} machines in group {name}, and {len(addresses)} addresses are given.",
            f"Add {group.nodes - len(addresses)} addresses of machines like {group.type.name}.",
            field="--launch groups",
        )
    return addresses[: group.nodes]


def pod_cores(machine: NodeType) -> int:
    """Return the whole CPU cores that a pod on a machine may have, at least one."""
    return max(1, math.floor(machine.cores * (1 - machine.reserve) + 1e-9))


def _node(machine: NodeType, *, pods: bool) -> dict[str, Any]:
    """Return the resources of a node. A machine has all of its own, and a pod what the system leaves."""
    share = 1 - MEMORY_RESERVE if pods else 1.0
    node: dict[str, Any] = {
        "cpus": pod_cores(machine) if pods else max(1, int(machine.cores)),
        "memory_gb": round(machine.memory_mb * share / GIB_MB, 1),
    }
    if not machine.gpus:
        return node
    if not machine.gpu:
        raise ConfigError(
            f"the kind of GPU of {machine.name} is unknown.",
            "Name it as Ray does: --gpu-node CORES:GB:GPUS:L4, or `gpu: L4` in the price file.",
            field="--gpu-node",
        )
    return {**node, "gpu": {"type": machine.gpu, "count": int(machine.gpus)}, "image": "gpu"}


def launch_files(
    document: Mapping[str, Any], profile: Mapping[str, Any], folder: Path
) -> tuple[list[RenderedFile], list[str]]:
    """Return the launch description and what the launch kit renders from it, and the kit's notes.

    Groups with addresses are rendered for `ray up`, and others for KubeRay, each in a folder of that name.

    Args:
        document: Result of `description`.
        profile: Content of the plan's `ray_config.yaml`.
        folder: Folder that the files will be written to.

    Raises:
        ConfigError: The description is invalid or does not suit the plan; the error names the field.
    """
    parsed = parse_description(dict(document))
    target: Target = "ray-up" if any(group.addresses for group in parsed.groups) else "kuberay"
    launch = Launch(parsed, dict(profile), parse_serve_file(dict(profile)), folder / PROFILE)
    notes = check_launch(launch, target)
    again = f"Render it again: rejoinder launch render --target {target} {DESCRIPTION} --out {target}"
    files = [yaml_file(DESCRIPTION, [document], f"Launch description of a plan. {again}")]
    rendered = render_files(launch, target, folder / target)
    files.extend(replace(file, path=f"{target}/{file.path}") for file in rendered)
    return files, notes
