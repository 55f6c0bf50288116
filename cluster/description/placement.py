"""Which groups of a launch description each deployed stage can run on, and whether they have room for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from cluster.description.groups import GROUP_LABEL, NodeGroupDescription
from cluster.description.launch_description import Launch, LaunchDescription
from cluster.fitting import Demand, demands, matches
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.stages import ACCELERATOR_LABEL, Resources


def place(launch: Launch) -> dict[str, dict[str, str]]:
    """Return the label selector of each deployed stage, by stage.

    It is the stage's own selector in the serve profile, or else selects the groups whose `stages` list the stage. {}
    means any node.

    Raises:
        ConfigError: A stage is listed by a group where it cannot run, or by none although others are listed.
    """
    description, selectors = launch.description, {}
    deployed = demands(launch.serve.application.args)
    _check_listed(description, {demand.stage for demand in deployed})
    anything_listed = any(group.stages for group in description.groups)
    for demand in deployed:
        own = demand.resources.label_selector
        listing = [group for group in description.groups if demand.stage in group.stages]
        # vLLM's replicas select the kind of GPU in any case. That alone does not place them on a group.
        if own.keys() - {ACCELERATOR_LABEL}:
            for group in listing:
                if not matches(own, description.labels(group)):
                    raise ConfigError(
                        f"group {group.name} lists {demand.stage}, whose label_selector {_text(own)} in the profile "
                        f"does not select it.",
                        f"Correct the labels or gpu.type of the group, or remove {demand.stage} from its stages.",
                        field=_field(description, group, "stages"),
                    )
            selectors[demand.stage] = own
        elif listing:
            selectors[demand.stage] = {**own, GROUP_LABEL: _any_of(description, listing)}
        elif anything_listed:
            raise ConfigError(
                f"no group lists {demand.stage}, which the profile deploys.",
                "Add it to the stages of a group.",
                field="groups",
            )
        else:
            selectors[demand.stage] = own
    return selectors


def _any_of(description: LaunchDescription, groups: Sequence[NodeGroupDescription]) -> str:
    """Return the value of a label selector that accepts the label `group` of any of these groups."""
    values = list(dict.fromkeys(description.labels(group)[GROUP_LABEL] for group in groups))
    return values[0] if len(values) == 1 else f"in({','.join(values)})"


def _check_listed(description: LaunchDescription, deployed: set[str]) -> None:
    for group in description.groups:
        for stage in group.stages:
            if stage not in deployed:
                raise ConfigError(
                    f"group {group.name} lists {stage}, but the profile does not deploy it.",
                    f"Remove it from the stages, or enable it in the profile ({_ENABLED_BY[stage]}).",
                    field=_field(description, group, "stages"),
                )


_ENABLED_BY = {
    "vad": "vad.placement: deployment",
    "llm_backup": "the section llm_backup",
    "answer_cache": "answer_cache.enabled: true",
}


def check_room(launch: Launch) -> list[str]:
    """Check that the minimum of replicas fits the nodes; return a note for each maximum that does not.

    Raises:
        ConfigError: No group can run a stage, or the groups have too few CPUs or GPUs for the minimum of replicas.
    """
    description, selectors = launch.description, place(launch)
    deployed = demands(launch.serve.application.args)
    eligible = {demand.stage: _eligible(description, demand, selectors[demand.stage]) for demand in deployed}
    notes = []
    for unit in (_CPUS, _GPUS):
        for names in _unions(eligible.values()):
            inside = [demand for demand in deployed if eligible[demand.stage] <= names]
            room = sum(unit.of_node(group) * group.bounds[2] for group in description.groups if group.name in names)
            least = sum(unit.of_replica(demand.resources) * demand.scaling.min_replicas for demand in inside)
            most = sum(unit.of_replica(demand.resources) * demand.scaling.max_replicas for demand in inside)
            stages, where = ", ".join(demand.stage for demand in inside), ", ".join(sorted(names))
            has = f"{most if least <= room else least:g} {unit.name}, and {where} have {room:g}"
            if least > room:
                raise ConfigError(
                    f"min_replicas of {stages} need {has}.",
                    "Add nodes to these groups (addresses or max), or lower min_replicas or num_cpus in the profile.",
                    field="groups",
                )
            if most > room:
                notes.append(f"max_replicas of {stages} need {has}: autoscaling ends there.")
    return notes


@dataclass(frozen=True, slots=True)
class _Unit:
    """A resource of Ray, with the functions that return how much of it a replica needs and a node has."""

    name: str
    of_replica: Callable[[Resources], float]
    of_node: Callable[[NodeGroupDescription], float]


_CPUS = _Unit("CPUs", lambda resources: resources.num_cpus, lambda group: group.cpus)
_GPUS = _Unit("GPUs", lambda resources: resources.num_gpus, lambda group: group.gpu.count if group.gpu else 0)


def _eligible(description: LaunchDescription, demand: Demand, selector: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the groups on which a replica of a stage can run; raise ConfigError if there is none."""
    labelled = [group for group in description.groups if matches(selector, description.labels(group))]
    if not labelled:
        labels = "; ".join(f"{group.name}: {_text(description.labels(group))}" for group in description.groups)
        raise ConfigError(
            f"{demand.stage} selects nodes with {_text(selector)}, which no group has ({labels}).",
            "Correct label_selector in the profile, or the labels of a group.",
            field=f"args.{demand.stage}.resources.label_selector",
        )
    cpus, gpus = demand.resources.num_cpus, demand.resources.num_gpus
    fitting = [group for group in labelled if group.cpus >= cpus and (group.gpu.count if group.gpu else 0) >= gpus]
    if not fitting:
        needs = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        raise ConfigError(
            f"a replica of {demand.stage} needs {needs}, more than a node of {_names(labelled)} has.",
            "Lower its resources in the profile, or give the group larger nodes.",
            field=f"args.{demand.stage}.resources",
        )
    return frozenset(group.name for group in fitting)


def _unions(sets: Iterable[frozenset[str]]) -> Iterator[frozenset[str]]:
    """Yield each union of some of the sets once.

    Stages fit exactly if, for each such set of groups, the stages that can run nowhere else fit it (Hall's theorem).
    """
    distinct = sorted(set(sets), key=sorted)
    chosen = chain.from_iterable(combinations(distinct, size) for size in range(1, len(distinct) + 1))
    yield from dict.fromkeys(frozenset().union(*some) for some in chosen)


def _field(description: LaunchDescription, group: NodeGroupDescription, name: str) -> str:
    return f"groups.{description.groups.index(group)}.{name}"


def _names(groups: Sequence[NodeGroupDescription]) -> str:
    return ", ".join(group.name for group in groups)


def _text(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items())
