"""Tests of the findings of `rejoinder doctor` about the GPUs of stages that do not run in vLLM."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from cluster.doctor.finding import Finding, Grade
from cluster.doctor.gpu_checks import gpu_checks
from cluster.gpus import HERE, NodeGpus
from deployments.engines.device import GpuProbes, Runtime, RuntimeFault
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import parse_settings

HALF = {"resources": {"num_gpus": 0.5}}
ONE = [NodeGpus(HERE, "L4", 1)]


def found(args: dict[str, Any], gpus: list[NodeGpus] | None = None, **faults: RuntimeFault) -> list[Finding]:
    """Return the findings on a machine with these GPUs (None: without a driver) whose runtimes have these faults."""

    def listed() -> list[NodeGpus]:
        if gpus is None:
            raise BackendError("nvidia-smi is not installed: this machine has no NVIDIA driver.")
        return gpus

    runtimes: tuple[Runtime, ...] = ("onnxruntime", "ctranslate2", "llama.cpp")
    probes = GpuProbes(list, {name: partial(faults.get, name) for name in runtimes})
    return list(gpu_checks(parse_settings(args), listed, probes))


def test_without_a_stage_on_a_gpu_nothing_is_checked() -> None:
    """The default settings, and vLLM, whose checks are others, have no findings here."""
    assert found({}) == []
    assert found({"llm": {"engine": "vllm", "resources": {"num_gpus": 1}}}) == []


@pytest.mark.parametrize("section", ["turn_detector", "stt", "llm", "tts"])
@pytest.mark.parametrize("gpus", [None, []])
def test_a_machine_without_a_gpu_fails(section: str, gpus: list[NodeGpus] | None) -> None:
    """A stage that reserves a GPU on a machine without one is one failed finding, before anything is deployed."""
    (finding,) = found({section: HALF}, gpus)
    assert finding.grade is Grade.FAIL
    assert (finding.check, "num_gpus" in finding.fix) == (f"GPUs for {section}", True)


def test_all_replicas_must_fit_on_the_gpus() -> None:
    """Two halves fit on one GPU; three halves do not, whichever stage they belong to."""
    assert {one.grade for one in found({"stt": HALF, "tts": HALF}, ONE)} == {Grade.OK}
    short = found({"stt": HALF, "llm": HALF}, ONE)[0]  # two replicas of the language model by default
    assert (short.grade, short.found[:34]) == (Grade.FAIL, "1 GPUs, and 1.5 are reserved by th")


def test_a_runtime_without_cuda_fails_with_its_fix() -> None:
    """Only the runtimes of the stages on the GPU are checked, and a fault is a failed finding with the fix."""
    fault = RuntimeFault("is built for the CPU", "Install the other one")
    checks = {one.check: one for one in found({"tts": HALF}, ONE, onnxruntime=fault, ctranslate2=fault)}
    assert checks.keys() == {"GPUs for tts", "onnxruntime on the GPU"}
    assert checks["onnxruntime on the GPU"] == Finding(
        "onnxruntime on the GPU", Grade.FAIL, "is built for the CPU", "Install the other one."
    )


def test_whisper_alone_needs_no_onnxruntime() -> None:
    """Speech to text needs onnxruntime on the GPU only if it has a first-pass recognizer."""
    both = {one.check for one in found({"stt": HALF}, ONE)}
    alone = {one.check for one in found({"stt": HALF | {"first_pass_model": ""}}, ONE)}
    assert both - alone == {"onnxruntime on the GPU"}
    assert "ctranslate2 on the GPU" in alone
