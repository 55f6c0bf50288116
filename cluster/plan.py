"""Files of a plan: a `ray_config.yaml` for `rejoinder serve` and `serve deploy`, and the node groups that it needs.

The configuration is the calibrated one with the replicas, resources and node labels of the plan. All other settings
stay unchanged. A node joins its group with `ray start --labels=group=NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rejoinder.core.capacity.sizing import NodeGroup, SizedComponent
from rejoinder.core.settings.section import is_loopback
from rejoinder.core.settings.serve_file import ServeFile, parse_serve_file

GROUP_LABEL = "group"
CPU_GROUP, GPU_GROUP = "cpu", "gpu"

EVERY_ADDRESS = "0.0.0.0"
"""Address on which every node of a plan listens. On the loopback address, no other machine would reach it."""

ONGOING_PER_SLOT = 4
"""Number of requests that Serve sends to a replica for each of its slots. Requests without a slot wait in the replica.
"""


@dataclass(frozen=True, slots=True)
class StageEngine:
    """Engine of a stage: the keys to set in its section of the configuration, and the source of this choice as text."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = "as calibrated"


@dataclass(frozen=True, slots=True)
class Bill:
    """All components (session hosts and stages) and nodes to deploy.

    Attributes:
        components: Replicas and resources of `host` and of each stage, by name.
        groups: Groups of equal nodes that the components run on.
        sessions_per_host: Maximum number of sessions of one host.
        least: Minimum number of replicas by name, spare ones included. A component without an entry has a fixed number.
        least_nodes: Minimum number of nodes, in the order of `groups`. Empty: fixed numbers.
    """

    components: Mapping[str, SizedComponent]
    groups: tuple[NodeGroup, ...]
    sessions_per_host: int
    least: Mapping[str, int] = field(default_factory=dict)
    least_nodes: tuple[int, ...] = ()


def configuration(base: ServeFile, plan: Bill, engines: Mapping[str, StageEngine]) -> dict[str, Any]:
    """Return the content of a `ray_config.yaml`.

    A server that listened on the loopback address while it was calibrated listens on every address in the cluster.

    Args:
        base: The calibrated configuration.
        plan: The components with their replicas and resources, and the node groups.
        engines: Engines that replace those of `base`, by stage.

    Raises:
        ConfigError: The result is invalid, for example a GPU for an engine that computes elsewhere.
    """
    document = base.model_dump(mode="json", exclude_unset=True)
    application = dict(document.get("applications", [{}])[0])
    args = dict(application.get("args", {}))
    # `serve deploy` has no defaults for these three keys.
    default = base.application
    application |= {"name": default.name, "route_prefix": default.route_prefix, "import_path": default.import_path}
    most_per_node = {name: most for group in plan.groups for name, most in group.most_per_node.items()}
    for name, sized in plan.components.items():
        section = dict(args.get(name, {})) | dict(engines[name].settings if name in engines else {})
        section["autoscaling"] = dict(section.get("autoscaling", {})) | _replicas(
            sized, plan.least.get(name, sized.replicas), most_per_node.get(name)
        )
        section["resources"] = _resources(sized)
        if name == "host":
            section["max_sessions"] = plan.sessions_per_host
            section["autoscaling"]["target_ongoing_requests"] = plan.sessions_per_host
        else:
            section["max_ongoing_requests"] = max(64, ONGOING_PER_SLOT * sized.unit.slots)
        args[name] = section
    document["applications"] = [application | {"args": args}]
    if is_loopback(base.http_options.host):
        document["http_options"] = dict(document.get("http_options", {})) | {"host": EVERY_ADDRESS}
    parse_serve_file(document)
    return document


def _replicas(sized: SizedComponent, least: int, most_per_node: int | None) -> dict[str, Any]:
    spread = {"max_replicas_per_node": most_per_node} if most_per_node else {}
    return {"min_replicas": least, "max_replicas": sized.replicas} | spread


def _resources(sized: SizedComponent) -> dict[str, Any]:
    unit = sized.unit
    resources: dict[str, Any] = {
        "num_cpus": round(unit.cores, 3),
        "memory_mb": round(unit.memory_mb),
        "label_selector": {GROUP_LABEL: GPU_GROUP if unit.gpus else CPU_GROUP},
    }
    return resources | ({"num_gpus": unit.gpus} if unit.gpus else {})


def node_groups(plan: Bill) -> dict[str, Any]:
    """Return the content of `node_groups.yaml`: for each group its machine type, nodes, labels and replicas by name."""
    least_nodes = plan.least_nodes or [group.nodes for group in plan.groups]
    return {
        "groups": [
            {
                "name": GPU_GROUP if group.type.gpus else CPU_GROUP,
                "type": group.type.name,
                "nodes": group.nodes,
                "least_nodes": least,
                "of_which_spare": group.spare,
                "cores": group.type.cores,
                "memory_mb": group.type.memory_mb,
                "gpus": group.type.gpus,
                "labels": {GROUP_LABEL: GPU_GROUP if group.type.gpus else CPU_GROUP},
                "replicas": group.replicas,
            }
            for group, least in zip(plan.groups, least_nodes, strict=True)
        ]
    }


CONFIG_HEAD = """\
# Written by `rejoinder plan`. Replicas include the spare ones. Resources are those of one replica.
# A node joins its group with `ray start ... --labels={label}={cpu}` or `{label}={gpu}`; see node_groups.yaml.
"""


def write(folder: Path, document: Mapping[str, Any], groups: Mapping[str, Any], notes: Sequence[str]) -> list[Path]:
    """Write `ray_config.yaml` and `node_groups.yaml` into `folder`, and return their paths.

    Args:
        folder: Folder, which is created if necessary.
        document: Result of `configuration`.
        groups: Result of `node_groups`.
        notes: Comment lines for `ray_config.yaml`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    head = CONFIG_HEAD.format(label=GROUP_LABEL, cpu=CPU_GROUP, gpu=GPU_GROUP)
    head += "".join(f"# {note}\n" for note in notes)
    files = {"ray_config.yaml": head + _yaml(document), "node_groups.yaml": _yaml(groups)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, width=120)
