"""Which GPUs there are, by an nvidia-smi that says what real ones say, and by what Ray says of its nodes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cluster.cards import HERE, QUERY, Cards, machine_cards, node_cards
from rejoinder.core.capacity.gpu_profiles import GPU_PROFILES
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.stages import ACCELERATOR_LABEL

# As their drivers print them: name, memory.total in MiB, compute capability.
PRINTED = {
    "h100": "NVIDIA H100 80GB HBM3, 81559, 9.0",
    "a100": "NVIDIA A100-SXM4-80GB, 81920, 8.0",
    "l4": "NVIDIA L4, 23034, 8.9",
    "a10g": "NVIDIA A10G, 23028, 8.6",
    "t4": "Tesla T4, 15360, 7.5",
}


def nvidia_smi(folder: Path, *lines: str, status: int = 0, visible: str | None = None) -> dict[str, str]:
    """An environment whose nvidia-smi prints these lines for exactly the query that we make."""
    script = folder / "nvidia-smi"
    query = f"--query-gpu={','.join(QUERY)} --format=csv,noheader,nounits"
    echoes = "\n".join(f"echo '{line}'" for line in lines)
    script.write_text(f'#!/bin/sh\n[ "$*" = "{query}" ] || exit 64\n{echoes}\nexit {status}\n', encoding="utf-8")
    script.chmod(0o755)
    hidden = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return {"PATH": f"{folder}{os.pathsep}/bin", **hidden}


def listed(*cards: str) -> list[str]:
    return [f"{index}, GPU-{index}aaaa-bbbb, {PRINTED[card]}" for index, card in enumerate(cards)]


@pytest.mark.parametrize("name", PRINTED)
def test_the_guides_cards_are_recognised(tmp_path: Path, name: str) -> None:
    """Kind and capability are the profile's, and the memory is what it counts with."""
    profile = next(profile for profile in GPU_PROFILES.values() if profile.name == name)
    (cards,) = machine_cards(nvidia_smi(tmp_path, *listed(name, name)))
    assert (cards.node, cards.kind, cards.count) == (HERE, profile.accelerator, 2)
    assert cards.capability == profile.capability
    assert cards.memory_gb == pytest.approx(profile.card.vram_gb, rel=0.1)


@pytest.mark.parametrize("name", ["NVIDIA L40S", "NVIDIA A10", "NVIDIA H200", "NVIDIA GeForce RTX 4090"])
def test_a_cousin_is_not_taken_for_one_of_them(tmp_path: Path, name: str) -> None:
    """A card whose name only begins like a known one keeps the maker's name."""
    (cards,) = machine_cards(nvidia_smi(tmp_path, f"0, GPU-0, {name}, 46068, 8.9"))
    assert cards.kind == name.removeprefix("NVIDIA ")


@pytest.mark.parametrize(
    ("visible", "counts"), [("0,2", 2), ("GPU-1aaaa", 1), ("", 0), ("-1", 0)], ids=["index", "uuid", "none", "minus"]
)
def test_hidden_cards_do_not_count(tmp_path: Path, visible: str, counts: int) -> None:
    """CUDA_VISIBLE_DEVICES hides cards from Ray and from vLLM, and so from us."""
    environment = nvidia_smi(tmp_path, *listed("l4", "l4", "l4"), visible=visible)
    assert sum(cards.count for cards in machine_cards(environment)) == counts


def test_memory_that_a_card_does_not_tell_is_unknown(tmp_path: Path) -> None:
    """A card that shares the machine's memory has none of its own."""
    (cards,) = machine_cards(nvidia_smi(tmp_path, "0, GPU-0, NVIDIA GB10, [N/A], 12.1"))
    assert (cards.memory_gb, cards.capability) == (None, 121)


def test_without_nvidia_smi_it_is_said(tmp_path: Path) -> None:
    """A machine without a driver has no nvidia-smi on its path."""
    with pytest.raises(BackendError, match="nvidia-smi is not installed"):
        machine_cards({"PATH": str(tmp_path)})


def test_a_broken_driver_is_quoted(tmp_path: Path) -> None:
    """What nvidia-smi says when it fails is in the error."""
    words = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    with pytest.raises(BackendError, match=f"status 9: {words}"):
        machine_cards(nvidia_smi(tmp_path, words, status=9))


def test_what_is_no_list_of_cards_is_refused(tmp_path: Path) -> None:
    """Success with other words than the asked ones is no empty list."""
    with pytest.raises(BackendError, match="No devices were found"):
        machine_cards(nvidia_smi(tmp_path, "No devices were found"))


def test_a_clusters_cards_are_those_of_nodes_that_have_any() -> None:
    """Kind by Ray's label, count by its resource; a node without a label has cards of no known kind."""

    def node(name: str, labels: dict[str, str], **resources: float) -> dict[str, Any]:
        return {"NodeManagerHostname": name, "Labels": labels, "Resources": {"CPU": 2.0, **resources}}

    nodes = [node("head", {}), node("one", {ACCELERATOR_LABEL: "L4"}, GPU=2.0), node("two", {}, GPU=1.0)]
    assert node_cards(nodes) == [Cards("one", "L4", 2.0), Cards("two", "", 1.0)]
