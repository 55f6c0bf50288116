"""Tests of finding GPUs in the output of nvidia-smi and in Ray's description of a cluster's nodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cluster.gpus import HERE, QUERY, NodeGpus, machine_gpus, node_gpus
from rejoinder.core.capacity.gpu_profiles import GPU_PROFILES
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.stages import ACCELERATOR_LABEL

# Output of nvidia-smi on real machines: name, memory.total in MiB, compute capability.
PRINTED = {
    "h100": "NVIDIA H100 80GB HBM3, 81559, 9.0",
    "a100": "NVIDIA A100-SXM4-80GB, 81920, 8.0",
    "l4": "NVIDIA L4, 23034, 8.9",
    "a10g": "NVIDIA A10G, 23028, 8.6",
    "t4": "Tesla T4, 15360, 7.5",
}


def nvidia_smi(folder: Path, *lines: str, status: int = 0, visible: str | None = None) -> dict[str, str]:
    """Write a script `nvidia-smi` that prints these lines, and return an environment that finds it.

    The script exits with `status`, and fails for any other query than that of `machine_gpus`. `visible` is the value of
    CUDA_VISIBLE_DEVICES. None leaves the variable unset.
    """
    script = folder / "nvidia-smi"
    query = f"--query-gpu={','.join(QUERY)} --format=csv,noheader,nounits"
    echoes = "\n".join(f"echo '{line}'" for line in lines)
    script.write_text(f'#!/bin/sh\n[ "$*" = "{query}" ] || exit 64\n{echoes}\nexit {status}\n', encoding="utf-8")
    script.chmod(0o755)
    hidden = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return {"PATH": f"{folder}{os.pathsep}/bin", **hidden}


def listed(*names: str) -> list[str]:
    return [f"{index}, GPU-{index}aaaa-bbbb, {PRINTED[name]}" for index, name in enumerate(names)]


@pytest.mark.parametrize("name", PRINTED)
def test_the_guides_gpus_are_recognized(tmp_path: Path, name: str) -> None:
    """For each GPU of the latency guide, the kind, capability and memory read from nvidia-smi match its profile."""
    profile = next(profile for profile in GPU_PROFILES.values() if profile.name == name)
    (gpus,) = machine_gpus(nvidia_smi(tmp_path, *listed(name, name)))
    assert (gpus.node, gpus.kind, gpus.count) == (HERE, profile.accelerator, 2)
    assert gpus.capability == profile.capability
    assert gpus.memory_gb == pytest.approx(profile.card.vram_gb, rel=0.1)


@pytest.mark.parametrize("name", ["NVIDIA L40S", "NVIDIA A10", "NVIDIA H200", "NVIDIA GeForce RTX 4090"])
def test_a_similar_name_is_another_gpu(tmp_path: Path, name: str) -> None:
    """A GPU whose name only begins like that of a known one (L40S and L4) is reported under its own name."""
    (gpus,) = machine_gpus(nvidia_smi(tmp_path, f"0, GPU-0, {name}, 46068, 8.9"))
    assert gpus.kind == name.removeprefix("NVIDIA ")


@pytest.mark.parametrize(
    ("visible", "counts"), [("0,2", 2), ("GPU-1aaaa", 1), ("", 0), ("-1", 0)], ids=["index", "uuid", "none", "minus"]
)
def test_hidden_gpus_do_not_count(tmp_path: Path, visible: str, counts: int) -> None:
    """GPUs that CUDA_VISIBLE_DEVICES hides from Ray and vLLM are not counted."""
    environment = nvidia_smi(tmp_path, *listed("l4", "l4", "l4"), visible=visible)
    assert sum(gpus.count for gpus in machine_gpus(environment)) == counts


def test_unreported_memory_is_unknown(tmp_path: Path) -> None:
    """If nvidia-smi reports no memory, as for a GPU that shares the machine's memory, the memory is None."""
    (gpus,) = machine_gpus(nvidia_smi(tmp_path, "0, GPU-0, NVIDIA GB10, [N/A], 12.1"))
    assert (gpus.memory_gb, gpus.capability) == (None, 121)


def test_a_missing_nvidia_smi_is_an_error(tmp_path: Path) -> None:
    """If nvidia-smi is not on the PATH, as on a machine without a driver, BackendError is raised."""
    with pytest.raises(BackendError, match="nvidia-smi is not installed"):
        machine_gpus({"PATH": str(tmp_path)})


def test_a_broken_driver_is_quoted(tmp_path: Path) -> None:
    """If nvidia-smi fails, the error contains its output."""
    words = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    with pytest.raises(BackendError, match=f"status 9: {words}"):
        machine_gpus(nvidia_smi(tmp_path, words, status=9))


def test_unexpected_output_is_refused(tmp_path: Path) -> None:
    """Output that is not a list of GPUs is an error, not an empty list."""
    with pytest.raises(BackendError, match="No devices were found"):
        machine_gpus(nvidia_smi(tmp_path, "No devices were found"))


def test_a_clusters_gpus_come_from_its_nodes() -> None:
    """In a cluster, a GPU's kind is Ray's label and the count is Ray's resource.

    Without a label the kind is unknown.
    """

    def node(name: str, labels: dict[str, str], **resources: float) -> dict[str, Any]:
        return {"NodeManagerHostname": name, "Labels": labels, "Resources": {"CPU": 2.0, **resources}}

    nodes = [node("head", {}), node("one", {ACCELERATOR_LABEL: "L4"}, GPU=2.0), node("two", {}, GPU=1.0)]
    assert node_gpus(nodes) == [NodeGpus("one", "L4", 2.0), NodeGpus("two", "", 1.0)]
