"""From sizes to files: a `ray_config.yaml` that `rejoinder serve` and `serve deploy` take, and the node groups for it.

The configuration is the one that was calibrated, with the replicas, resources and node labels of the plan; what the
plan does not decide stays as it was. A node joins its group with `ray start --labels=group=NAME`, as the written file
says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rejoinder.core.capacity.sizing import NodeGroup, NodeType, SizedComponent, node_group
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import ServeFile, parse_serve_file

GROUP_LABEL = "group"
CPU_GROUP, GPU_GROUP = "cpu", "gpu"

ONGOING_PER_SLOT = 4
"""Requests that a replica takes on for each of its slots, waiting ones included, before Serve's router holds them."""


@dataclass(frozen=True, slots=True)
class StageEngine:
    """What stands behind a stage: settings of its section, and where the choice comes from."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = "as calibrated"


@dataclass(frozen=True, slots=True)
class Bill:
    """Everything to deploy: components by name (`host` and the stages), and the node groups that hold them."""

    components: Mapping[str, SizedComponent]
    groups: tuple[NodeGroup, ...]
    sessions_per_host: int


def bill(
    components: Mapping[str, SizedComponent], cpu: NodeType, gpu: NodeType | None, spare: int, *, per_host: int
) -> Bill:
    """Place every component: on the GPU group if it wants one, else on the CPU group.

    Raises ConfigError if a component does not fit its node type, or wants a GPU and there is no such type.
    """
    wanting = [sized for sized in components.values() if sized.unit.gpus]
    others = [sized for sized in components.values() if not sized.unit.gpus]
    if wanting and gpu is None:
        names = ", ".join(sized.unit.name for sized in wanting)
        raise ConfigError(f"{names} want a GPU.", "Name a node type that has one.", field="--gpu-node")
    groups = [_group(cpu, others, spare, "--cpu-node")]
    if wanting and gpu is not None:
        groups.append(_group(gpu, wanting, spare, "--gpu-node"))
    return Bill(components, tuple(groups), per_host)


def _group(node: NodeType, components: Sequence[SizedComponent], spare: int, option: str) -> NodeGroup:
    try:
        return node_group(node, components, spare)
    except ValueError as error:
        raise ConfigError(f"{error}.", "Choose a larger node type.", field=option) from None


def configuration(base: ServeFile, plan: Bill, engines: Mapping[str, StageEngine]) -> dict[str, Any]:
    """The document of a `ray_config.yaml`; valid by construction, and checked."""
    document = base.model_dump(mode="json", exclude_unset=True)
    application = dict(document.get("applications", [{}])[0])
    args = dict(application.get("args", {}))
    # Serve's own file needs these three; ours could leave them to their defaults.
    named = base.application
    application |= {"name": named.name, "route_prefix": named.route_prefix, "import_path": named.import_path}
    for name, sized in plan.components.items():
        section = dict(args.get(name, {})) | dict(engines[name].settings if name in engines else {})
        section["autoscaling"] = dict(section.get("autoscaling", {})) | _replicas(sized)
        section["resources"] = _resources(sized)
        if name == "host":
            section["max_sessions"] = plan.sessions_per_host
            section["autoscaling"]["target_ongoing_requests"] = plan.sessions_per_host
        else:
            section["max_ongoing_requests"] = max(64, ONGOING_PER_SLOT * sized.unit.slots)
        args[name] = section
    document["applications"] = [application | {"args": args}]
    parse_serve_file(document)
    return document


def _replicas(sized: SizedComponent) -> dict[str, Any]:
    return {"min_replicas": sized.replicas, "max_replicas": sized.replicas}


def _resources(sized: SizedComponent) -> dict[str, Any]:
    unit = sized.unit
    resources: dict[str, Any] = {
        "num_cpus": round(unit.cores, 3),
        "memory_mb": round(unit.memory_mb),
        "label_selector": {GROUP_LABEL: GPU_GROUP if unit.gpus else CPU_GROUP},
    }
    return resources | ({"num_gpus": unit.gpus} if unit.gpus else {})


def node_groups(plan: Bill) -> dict[str, Any]:
    """The document of `node_groups.yaml`."""
    return {
        "groups": [
            {
                "name": GPU_GROUP if group.type.gpus else CPU_GROUP,
                "type": group.type.name,
                "nodes": group.nodes,
                "of_which_spare": group.spare,
                "cores": group.type.cores,
                "memory_mb": group.type.memory_mb,
                "gpus": group.type.gpus,
                "labels": {GROUP_LABEL: GPU_GROUP if group.type.gpus else CPU_GROUP},
                "replicas": group.replicas,
            }
            for group in plan.groups
        ]
    }


CONFIG_HEAD = """\
# Written by `rejoinder plan`. Sizes: replicas include the spare ones; resources are those of one replica.
# Nodes join their group with `ray start ... --labels={label}={cpu}` or `{label}={gpu}` (sizes: node_groups.yaml).
"""


def write(folder: Path, document: Mapping[str, Any], groups: Mapping[str, Any], notes: Sequence[str]) -> list[Path]:
    """`ray_config.yaml` and `node_groups.yaml`; `notes` become comments of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    head = CONFIG_HEAD.format(label=GROUP_LABEL, cpu=CPU_GROUP, gpu=GPU_GROUP)
    head += "".join(f"# {note}\n" for note in notes)
    files = {"ray_config.yaml": head + _yaml(document), "node_groups.yaml": _yaml(groups)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, width=120)
