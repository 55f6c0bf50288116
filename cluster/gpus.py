"""GPUs of this machine (from nvidia-smi) and of a cluster (from Ray)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rejoinder.core.capacity.gpu_profiles import GPU_PROFILES
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.stages import ACCELERATOR_LABEL

QUERY = ("index", "uuid", "name", "memory.total", "compute_cap")
# Timeout for nvidia-smi, which hangs if the driver hangs. With a healthy driver in power saving it takes some seconds.
NVIDIA_SMI_TIMEOUT_S = 20.0
# nvidia-smi prints MiB; vendors and the latency guide use decimal gigabytes.
MIB_PER_GB = 1e9 / 1024**2
HERE = "this machine"
"""Node name of GPUs on this machine."""
VISIBLE = "CUDA_VISIBLE_DEVICES"

_PROFILED = re.compile(rf"\b({'|'.join(profile.accelerator for profile in GPU_PROFILES.values())})\b")


@dataclass(frozen=True, slots=True)
class NodeGpus:
    """The GPUs of one kind in one machine.

    Attributes:
        node: Name of the machine.
        kind: Ray's label for the kind of GPU; "" if the node has no label.
        count: Number of GPUs.
        memory_gb: Memory of each in decimal gigabytes; None if unknown. Ray does not report it.
        capability: Compute capability times 10 (89 for 8.9); None if unknown. Ray does not report it.
    """

    node: str
    kind: str
    count: float
    memory_gb: float | None = None
    capability: int | None = None


def machine_gpus(environment: Mapping[str, str] = os.environ) -> list[NodeGpus]:
    """Return the GPUs that CUDA may use on this machine, grouped by kind.

    Args:
        environment: PATH for nvidia-smi, and CUDA_VISIBLE_DEVICES.

    Raises:
        BackendError: nvidia-smi is missing, fails or hangs.
    """
    command = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if command is None:
        raise BackendError("nvidia-smi is not installed: this machine has no NVIDIA driver.")
    query = [command, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"nvidia-smi does not answer within {NVIDIA_SMI_TIMEOUT_S:g} s.") from error
    if done.returncode:
        output = " ".join((done.stdout + done.stderr).split())
        raise BackendError(f"nvidia-smi fails with status {done.returncode}: {output}")
    return _parse(done.stdout, environment.get(VISIBLE))


def node_gpus(nodes: Iterable[Mapping[str, Any]]) -> list[NodeGpus]:
    """Return the GPUs of nodes, which are entries of `ray.nodes()`. Nodes without GPUs are left out."""
    return [
        NodeGpus(node["NodeManagerHostname"], node["Labels"].get(ACCELERATOR_LABEL, ""), node["Resources"]["GPU"])
        for node in nodes
        if node["Resources"].get("GPU")
    ]


def _parse(output: str, visible: str | None) -> list[NodeGpus]:
    """Return the GPUs in nvidia-smi's output, grouped by kind. Raise BackendError for an unexpected line."""
    counts: Counter[NodeGpus] = Counter()
    for line in output.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != len(QUERY):
            raise BackendError(f"nvidia-smi prints {line!r} instead of {', '.join(QUERY)}.")
        index, uuid, name, memory_mib, capability = parts
        if visible is None or _lists(visible, index, uuid):
            memory_gb = float(memory_mib) / MIB_PER_GB if _is_number(memory_mib) else None
            tenths = round(10 * float(capability)) if _is_number(capability) else None
            counts[NodeGpus(HERE, kind=_kind(name), count=1, memory_gb=memory_gb, capability=tenths)] += 1
    return [replace(gpu, count=count) for gpu, count in counts.items()]


def _kind(name: str) -> str:
    """Return Ray's label for a GPU of this name, or the vendor's name for a GPU without a profile."""
    match = _PROFILED.search(name)
    return match[1] if match else name.removeprefix("NVIDIA ")


def _is_number(text: str) -> bool:
    """Return True for a number; nvidia-smi prints [N/A] for a value that a GPU does not have."""
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None


def _lists(visible: str, index: str, uuid: str) -> bool:
    """Return True if CUDA_VISIBLE_DEVICES lists this GPU. It may contain the beginning of a UUID only."""
    listed = [entry.strip() for entry in visible.split(",")]
    return any(entry == index or (entry.startswith("GPU-") and uuid.startswith(entry)) for entry in listed)
