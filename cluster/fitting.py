"""Whether the replicas of a configuration fit on the nodes of a cluster.

Ray Serve waits without end, and without a word, for a node that a replica fits on. So this is checked before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings
from rejoinder.core.settings.stages import Autoscaling, Resources

TOLERANCE = 1e-6
"""Resources that may lack because of floating-point errors. Ray counts ten-thousandths."""


@dataclass(frozen=True, slots=True)
class NodeOffer:
    """What a node offers.

    Attributes:
        name: Name of the node.
        resources: Amounts by Ray's name of the resource: "CPU", "GPU", "memory" in bytes, and custom ones.
        labels: Labels of the node.
    """

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demand:
    """What the replicas of one deployment reserve.

    Attributes:
        stage: Section of the settings, such as "llm".
        resources: What each replica reserves, with the labels of its nodes.
        scaling: Number of replicas.
    """

    stage: str
    resources: Resources
    scaling: Autoscaling

    @property
    def replicas(self) -> int:
        """The smallest number of replicas."""
        return self.scaling.min_replicas

    @property
    def amounts(self) -> dict[str, float]:
        """The reserved amounts by Ray's name of the resource, without zeros."""
        own = self.resources
        amounts = {"CPU": own.num_cpus, "GPU": own.num_gpus, "memory": own.memory_mb * 1024.0 * 1024}
        return {name: amount for name, amount in (amounts | own.custom).items() if amount}


def offers(nodes: Iterable[Mapping[str, Any]]) -> list[NodeOffer]:
    """Return what the nodes offer, from entries of `ray.nodes()`."""
    return [NodeOffer(node["NodeManagerHostname"], node["Resources"], node["Labels"]) for node in nodes]


def demands(settings: Settings) -> list[Demand]:
    """Return what each deployment of these settings reserves."""
    stages = {"turn_detector": settings.turn_detector, "stt": settings.stt, "llm": settings.llm, "tts": settings.tts}
    if settings.vad.placement == "deployment":
        stages["vad"] = settings.vad
    if settings.answer_cache.enabled:
        stages["answer_cache"] = settings.answer_cache
    if settings.llm_backup:
        stages["llm_backup"] = settings.llm_backup
    host = Demand("host", settings.host.resources, settings.host.autoscaling)
    return [host, *(Demand(name, stage.reservation, stage.autoscaling) for name, stage in stages.items())]


def misfits(wanted: Iterable[Demand], nodes: Sequence[NodeOffer]) -> list[ConfigError]:
    """Return an error for each deployment whose smallest number of replicas does not fit on the nodes.

    Replicas are placed in the order of their size, each on the first node with enough left. Ray may place them in
    another order, so replicas that fit here may still wait on a cluster that is almost full.

    Args:
        wanted: The deployments.
        nodes: The nodes, empty but for Ray itself.
    """
    left = [dict(node.resources) for node in nodes]
    errors = []
    for demand in sorted(wanted, key=_size, reverse=True):
        error = _nowhere(demand, nodes) or _placed(demand, nodes, left)
        if error:
            errors.append(error)
    return errors


def _size(demand: Demand) -> tuple[float, int, float]:
    return demand.resources.num_gpus, len(demand.resources.label_selector), demand.resources.num_cpus


def _placed(demand: Demand, nodes: Sequence[NodeOffer], left: list[dict[str, float]]) -> ConfigError | None:
    """Take the replicas' resources from `left`, an entry for each node. Return an error if some do not fit."""
    for replica in range(demand.replicas):
        for node, free in zip(nodes, left, strict=True):
            if matches(demand.resources.label_selector, node.labels) and not _lacking(demand.amounts, free):
                for name, amount in demand.amounts.items():
                    free[name] -= amount
                break
        else:
            needs = _text(demand.amounts)
            return ConfigError(
                f"only {replica} of {demand.replicas} replicas fit beside the other deployments: each needs {needs}.",
                "Add nodes, or lower min_replicas or the resources.",
                field=f"args.{demand.stage}.autoscaling.min_replicas",
            )
    return None


def _nowhere(demand: Demand, nodes: Sequence[NodeOffer]) -> ConfigError | None:
    """Return an error if no node, even an empty one, can run one replica."""
    path = f"args.{demand.stage}.resources"
    suitable = [node for node in nodes if matches(demand.resources.label_selector, node.labels)]
    if not suitable:
        wanted = ", ".join(f"{key}={value}" for key, value in demand.resources.label_selector.items())
        known = sorted({f"{key}={value}" for node in nodes for key, value in node.labels.items() if "/" not in key})
        found = f"the labels are {', '.join(known)}" if known else "no node has labels of yours"
        return ConfigError(
            f"no node has the label {wanted} ({found}).",
            "Start a node with `ray start --labels=...`, or correct label_selector.",
            field=f"{path}.label_selector",
        )
    if any(not _lacking(demand.amounts, node.resources) for node in suitable):
        return None
    most = {name: max(node.resources.get(name, 0) for node in suitable) for name in demand.amounts}
    short = [name for name, amount in demand.amounts.items() if amount > most[name] + TOLERANCE] or list(demand.amounts)
    setting = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory_mb"}.get(short[0], "custom")
    return ConfigError(
        f"a replica needs {_text(demand.amounts)}, but no node has more than {_text(most, short)}.",
        "Add such a node, or lower this setting.",
        field=f"{path}.{setting}",
    )


def _lacking(amounts: Mapping[str, float], free: Mapping[str, float]) -> bool:
    return any(amount > free.get(name, 0) + TOLERANCE for name, amount in amounts.items())


def _text(amounts: Mapping[str, float], names: Iterable[str] = ()) -> str:
    """Return amounts as text, such as "1 CPU and 2 GPU". `names` selects some; by default all."""
    chosen = list(names) or list(amounts)
    parts = [
        f"{amounts[name] / 1024**2:.0f} MiB of memory" if name == "memory" else f"{amounts[name]:g} {name}"
        for name in chosen
    ]
    return " and ".join(parts) or "nothing"


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return True if a node with these labels satisfies a label selector of Ray.

    A value is "x", "!x", "in(x,y)" or "!in(x,y)".
    https://docs.ray.io/en/latest/ray-core/scheduling/labels.html
    """
    for key, condition in selector.items():
        wanted = condition.removeprefix("!")
        inside = wanted.startswith("in(") and wanted.endswith(")")
        values = [value.strip() for value in wanted[3:-1].split(",")] if inside else [wanted]
        if (labels.get(key) in values) == condition.startswith("!"):
            return False
    return True
