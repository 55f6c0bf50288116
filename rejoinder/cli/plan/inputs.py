"""What `rejoinder plan` reads besides the calibration: machine types, prices, a day's calls and a site to launch on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cluster.plan_launch import pod_cores, read_site
from cluster.prices import PriceFile, read_prices
from loadtest.capacity.inversion import CapacityTarget
from loadtest.planning.day import DayLoad, read_day
from rejoinder.core.capacity.sizing import NodeType
from rejoinder.core.errors import ConfigError

if TYPE_CHECKING:
    from rejoinder.cli.plan.command import PlanOptions

CPU_NODE, GPU_NODE = "16:64", "16:64:1"
"""Machine types without a price file."""


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """Content of the files that the options name; None for a file that is not given."""

    prices: PriceFile | None = None
    day: DayLoad | None = None
    site: Mapping[str, Any] | None = None


def read_inputs(options: PlanOptions) -> PlanInputs:
    """Return the content of the files of `--prices`, `--day` and `--launch`.

    Raises:
        ConfigError: A file is wrong, or an option that belongs to another one is missing.
    """
    if options.day and not options.call_s:
        raise ConfigError("the length of a call is unknown.", "Give it in seconds, as --call-s 180.", field="--call-s")
    if options.call_s and not options.day:
        raise ConfigError("it is used with --day only.", "Give --day FILE, or remove it.", field="--call-s")
    if bool(options.day) == bool(options.sessions):
        raise ConfigError(
            "a plan needs one load.", "Give --sessions N, or --day FILE with --call-s S.", field="--sessions"
        )
    if options.launch and not options.write:
        raise ConfigError("there is no folder for the files.", "Add --write DIR.", field="--write")
    return PlanInputs(
        read_prices(options.prices) if options.prices else None,
        read_day(options.day, options.call_s) if options.day else None,
        read_site(options.launch) if options.launch else None,
    )


def capacity_target(options: PlanOptions, inputs: PlanInputs) -> CapacityTarget:
    """Return the target of the options. With a day's calls, its highest load is planned."""
    return CapacityTarget(
        inputs.day.most if inputs.day else options.sessions,
        tier=options.tier,
        p95_ms=options.p95_ms,
        spare=options.spare,
        refused=options.refused,
        low_sessions=inputs.day.least if inputs.day else None,
    )


def machines(text: str, inputs: PlanInputs, *, gpus: bool) -> tuple[NodeType, ...]:
    """Return the machine types among which the plan chooses.

    A pod has whole cores. So the plan for pods leaves the rest of a core to the operating system, too.

    Args:
        text: Value of `--cpu-node` or `--gpu-node`; empty if the option is not given.
        inputs: The price file and the site.
        gpus: Whether the machines have GPUs.

    Raises:
        ConfigError: The text is not a machine type, or is not in the price file.
    """
    option = "--gpu-node" if gpus else "--cpu-node"
    if inputs.prices is None:
        found: tuple[NodeType, ...] = (node_type(text or (GPU_NODE if gpus else CPU_NODE), option),)
    else:
        found = (inputs.prices.named(text, option, gpus=gpus),) if text else inputs.prices.types(gpus=gpus)
    if inputs.site is None or inputs.site.get("groups"):
        return found
    return tuple(replace(node, reserve=max(node.reserve, 1 - pod_cores(node) / node.cores)) for node in found)


def node_type(text: str, option: str) -> NodeType:
    """Return the machine type of a text such as "16:64:2:L4" (16 cores, 64 GB, two GPUs of the kind L4).

    The kind and the GPUs may be omitted.

    Raises:
        ConfigError: The text is not a machine type. The error names `option`.
    """
    *numbers, kind = text.split(":") if text.count(":") >= 3 else [*text.split(":"), ""]
    try:
        cores, memory_gb, gpus = (float(part) for part in (numbers if len(numbers) == 3 else [*numbers, "0"]))
        found = NodeType(text, cores, memory_gb * 1000, gpus, gpu=kind)
    except ValueError:
        found = NodeType(text, 0, 0)
    if min(found.cores, found.memory_mb) <= 0 or found.gpus < 0:
        raise ConfigError(
            f"{text!r} is not a machine type.", "Write CORES:GB, CORES:GB:GPUS or CORES:GB:GPUS:KIND.", field=option
        )
    return found
