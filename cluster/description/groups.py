"""Groups of equal nodes in a launch description."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cluster.description.addresses import DnsLabel, HostAddress, LabelKey, LabelValue, VariableName, VariableValue
from rejoinder.core.settings.section import Count, Section
from rejoinder.core.settings.stages import ACCELERATOR_LABEL

GROUP_LABEL = "group"
"""Label of every node, by which stages select it. Its value is the name of the group unless `labels` sets it."""
REGION_LABEL = "region"
"""Label that every node gets if the description names a region."""

DeployedStage = Literal["host", "vad", "turn_detector", "stt", "llm", "llm_backup", "tts", "answer_cache"]
"""Section of the serve profile whose replicas a group can run."""


class GroupGpu(Section):
    """The GPUs of each node of a group."""

    type: LabelValue = Field(min_length=1)
    """Kind of GPU as Ray names it, the value of its label `ray.io/accelerator-type`: for example L4, A100 or H100."""
    count: Count = 1
    """Number of GPUs of a node."""


class NodeGroupDescription(Section):
    """A group of equal nodes: either `addresses` of machines, or numbers of pods."""

    name: DnsLabel
    """Name of the group. Its nodes have the label `group` with this value."""
    role: Literal["head", "worker"] = "worker"
    """`head`: the one node with Ray's head. `worker`: nodes that join it."""
    image: Literal["cpu", "gpu"] = "cpu"
    """Container image of the nodes, a key of `images`. Kubernetes only."""
    addresses: tuple[HostAddress, ...] = ()
    """Addresses of the machines, IPv4 or host names that the other nodes can resolve. For `ray-up` and `bare`."""
    count: Annotated[int, Field(ge=0)] | None = None
    """Number of pods at the start. Default: `min`. Kubernetes only."""
    min: int | None = Field(None, ge=0)
    """Minimum number of pods. Default: `count`, or 1. Kubernetes only."""
    max: int | None = Field(None, ge=0)
    """Maximum number of pods, up to which Ray's autoscaler adds them. Default: `min`. Kubernetes only."""
    cpus: Count
    """CPU cores of a node."""
    memory_gb: float = Field(gt=0)
    """Memory of a node in GiB."""
    shared_memory_gb: float = Field(1.0, ge=0.25)
    """Size of /dev/shm of a pod in GiB. It holds Ray's object store, and vLLM's buffers if several GPUs serve one
    model. Kubernetes only: a machine has what its system gives it.
    """
    gpu: GroupGpu | None = None
    """GPUs of a node. None: none."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Further labels of the nodes, which stages can select. `group` replaces the group's name as the value of that
    label, so that several groups can have the same.
    """
    stages: tuple[DeployedStage, ...] = ()
    """Stages that run on this group. A stage that several groups list runs on any of them. A stage whose section in the
    serve profile has a `label_selector` of its own is placed by that.
    """
    environment: dict[VariableName, VariableValue] = Field(default_factory=dict)
    """Environment variables of the nodes of this group, over those of the cluster. Keys and tokens belong in `secrets`.
    """
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a Kubernetes node must have for these pods. Kubernetes only."""

    @model_validator(mode="after")
    def _numbers(self) -> NodeGroupDescription:
        if self.addresses and {"count", "min", "max"} & self.model_fields_set:
            raise ValueError("a group has either addresses or numbers of pods. Remove count, min and max, or addresses")
        if len(set(self.addresses)) < len(self.addresses):
            raise ValueError("an address is listed twice. Remove one of them")
        low, start, high = self.bounds
        if not low <= start <= high:
            raise ValueError(
                f"min {low}, count {start} and max {high} are not in order. Raise max, or lower the others"
            )
        if self.role == "head" and (low, high) != (1, 1):
            raise ValueError("Ray has exactly one head. Give the group with role head one address, or count 1")
        if self.image == "gpu" and self.gpu is None:
            raise ValueError("image is gpu, but the group has no gpu. Add gpu with its type, or use the image cpu")
        if REGION_LABEL in self.labels:
            raise ValueError(f"the label {REGION_LABEL} is set from `region` of the description. Remove it")
        return self

    @property
    def bounds(self) -> tuple[int, int, int]:
        """Number of nodes: the minimum, the number at the start, and the maximum."""
        if self.addresses:
            return (len(self.addresses),) * 3
        low = self.min if self.min is not None else self.count if self.count is not None else 1
        start = self.count if self.count is not None else low
        return low, start, self.max if self.max is not None else max(low, start)


def group_labels(group: NodeGroupDescription, region: str) -> dict[str, str]:
    """Return the labels of a group's nodes by key.

    Ray detects the kind of GPU on a running node. Its autoscaler and the checks of a description learn it only from
    these labels.
    """
    return {
        GROUP_LABEL: group.name,
        **({REGION_LABEL: region} if region else {}),
        **({ACCELERATOR_LABEL: group.gpu.type} if group.gpu else {}),
        **group.labels,
    }
