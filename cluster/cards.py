"""Which GPUs there are: on this machine by nvidia-smi, on a cluster by what its nodes tell Ray."""

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
# A driver that is wedged lets nvidia-smi hang; a healthy one that sleeps takes some seconds to wake.
NVIDIA_SMI_TIMEOUT_S = 20.0
# nvidia-smi counts in MiB, the makers and the guide in decimal gigabytes.
MIB_PER_GB = 1e9 / 1024**2
HERE = "this machine"
HIDING = "CUDA_VISIBLE_DEVICES"

_KNOWN = re.compile(rf"\b({'|'.join(profile.accelerator for profile in GPU_PROFILES.values())})\b")


@dataclass(frozen=True, slots=True)
class Cards:
    """The GPUs of one kind in one machine. `kind`: as Ray labels a node that has it, "" if nobody says.

    `memory_gb` of each, and the compute `capability` in tenths: None where nobody says, as Ray does not.
    """

    node: str
    kind: str
    count: float
    memory_gb: float | None = None
    capability: int | None = None


def machine_cards(environment: Mapping[str, str] = os.environ) -> list[Cards]:
    """The GPUs that CUDA may use on this machine; raises BackendError if nvidia-smi is missing or fails."""
    command = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if command is None:
        raise BackendError("nvidia-smi is not installed: this machine has no NVIDIA driver.")
    query = [command, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"nvidia-smi does not answer within {NVIDIA_SMI_TIMEOUT_S:g} s.") from error
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        raise BackendError(f"nvidia-smi fails with status {done.returncode}: {said}")
    return _counted(done.stdout, environment.get(HIDING))


def node_cards(nodes: Iterable[Mapping[str, Any]]) -> list[Cards]:
    """The GPUs of nodes as `ray.nodes()` describes them."""
    return [
        Cards(node["NodeManagerHostname"], node["Labels"].get(ACCELERATOR_LABEL, ""), node["Resources"]["GPU"])
        for node in nodes
        if node["Resources"].get("GPU")
    ]


def _counted(printed: str, visible: str | None) -> list[Cards]:
    """nvidia-smi's lines, cards that are alike together; raises BackendError for a line that is none of its own."""
    counts: Counter[Cards] = Counter()
    for line in printed.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != len(QUERY):
            raise BackendError(f"nvidia-smi says {line!r} instead of {', '.join(QUERY)}.")
        index, uuid, name, memory_mib, capability = parts
        if visible is None or _lists(visible, index, uuid):
            memory_gb = float(memory_mib) / MIB_PER_GB if _is_number(memory_mib) else None
            tenths = round(10 * float(capability)) if _is_number(capability) else None
            counts[Cards(HERE, kind=_kind(name), count=1, memory_gb=memory_gb, capability=tenths)] += 1
    return [replace(card, count=count) for card, count in counts.items()]


def _kind(name: str) -> str:
    """A card's name as Ray's label has it, or what the maker calls it."""
    known = _KNOWN.search(name)
    return known[1] if known else name.removeprefix("NVIDIA ")


def _is_number(text: str) -> bool:
    """Of what a card does not have, nvidia-smi says [N/A]."""
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None


def _lists(visible: str, index: str, uuid: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES lists this card; a UUID may be cut short there."""
    listed = [entry.strip() for entry in visible.split(",")]
    return any(entry == index or (entry.startswith("GPU-") and uuid.startswith(entry)) for entry in listed)
