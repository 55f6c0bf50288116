"""The checks of `rejoinder doctor` for stages whose engines compute on a GPU of this machine, other than vLLM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from cluster.doctor.finding import Finding, Grade
from cluster.gpus import NodeGpus
from deployments.engines.device import REAL_PROBES, GpuProbes, Runtime
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.devices import DEVICE_ENGINES
from rejoinder.core.settings.settings import Settings
from rejoinder.core.settings.stages import StageSettings

RUNTIMES: Mapping[str, tuple[Runtime, ...]] = {
    "vad": ("onnxruntime",),
    "turn_detector": ("onnxruntime",),
    "stt": ("ctranslate2", "onnxruntime"),
    "llm": ("llama.cpp",),
    "llm_backup": ("llama.cpp",),
    "tts": ("onnxruntime",),
    "answer_cache": ("ctranslate2",),
}
"""Runtimes that load the models of each stage. `stt` needs onnxruntime for its first-pass recognizer only."""


def gpu_checks(
    settings: Settings, gpus: Callable[[], Sequence[NodeGpus]], probes: GpuProbes = REAL_PROBES
) -> Iterator[Finding]:
    """Yield the findings for this machine's GPUs; none if no stage but vLLM reserves one.

    Args:
        settings: The settings to serve.
        gpus: Returns the GPUs of this machine, or raises BackendError.
        probes: How to find out what the runtimes can use.
    """
    stages = _on_gpus(settings)
    if not stages:
        return
    names = ", ".join(stages)
    needed = sum(stage.autoscaling.min_replicas * stage.reservation.num_gpus for stage in stages.values())
    try:
        count = sum(found.count for found in gpus())
        failure = "this machine has no GPU" if not count else ""
    except BackendError as error:
        count, failure = 0, error.message
    if failure:
        fix = "Set num_gpus of these stages to 0, or name a cluster with GPUs: `rejoinder doctor --address HOST:PORT`."
        yield Finding(f"GPUs for {names}", Grade.FAIL, failure, fix)
        return
    if needed > count:
        found = f"{count:g} GPUs, and {needed:g} are reserved by the smallest numbers of replicas"
        yield Finding(f"GPUs for {names}", Grade.FAIL, found, "Lower num_gpus or min_replicas, or use several nodes.")
    else:
        yield Finding(f"GPUs for {names}", Grade.OK, f"{needed:g} of {count:g} GPUs")
    for runtime in _runtimes(stages):
        if fault := probes.runtimes[runtime]():
            yield Finding(f"{runtime} on the GPU", Grade.FAIL, fault.message, f"{fault.remedy}.")
        else:
            yield Finding(f"{runtime} on the GPU", Grade.OK, "can use it")


def _on_gpus(settings: Settings) -> dict[str, StageSettings]:
    """Return the stages that reserve a GPU and whose engine reads the setting `device`, by section."""
    stages = {name: getattr(settings, name) for name in RUNTIMES}
    return {
        name: stage
        for name, stage in stages.items()
        if stage is not None and stage.on_gpu and getattr(stage, "engine", "") in DEVICE_ENGINES
    }


def _runtimes(stages: Mapping[str, StageSettings]) -> list[Runtime]:
    """Return the runtimes of stages, each once, in alphabetical order."""
    found = {runtime for name in stages for runtime in RUNTIMES[name]}
    stt = stages.get("stt")
    if (
        stt is not None
        and not getattr(stt, "has_first_pass", True)
        and not any("onnxruntime" in RUNTIMES[name] for name in stages if name != "stt")
    ):
        found.discard("onnxruntime")
    return sorted(found)
