"""Tests of the price file: its machine types, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.prices import read_prices
from rejoinder.core.errors import ConfigError

NODES: dict[str, dict[str, Any]] = {
    "small": {"per_hour": 0.2, "cores": 4, "memory_gb": 8},
    "card": {"per_hour": 0.9, "cores": 16, "memory_gb": 64, "gpus": 1, "gpu": "L4"},
}


def written(path: Path, document: object) -> Path:
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def test_types_with_and_without_gpus(tmp_path: Path) -> None:
    """The file gives the machine types with GPUs, those without, and one by its name."""
    prices = read_prices(written(tmp_path / "prices.yaml", {"currency": "EUR", "nodes": NODES}))
    (small,), (card,) = prices.types(gpus=False), prices.types(gpus=True)
    assert (small.name, small.cores, small.memory_mb, small.per_hour) == ("small", 4, 8000, 0.2)
    assert (card.gpus, card.gpu) == (1, "L4")
    assert prices.named("card", "--gpu-node", gpus=True) == card
    for name, gpus in (("other", False), ("card", False)):
        with pytest.raises(ConfigError, match=f"no machine type '{name}' without GPUs") as refused:
            prices.named(name, "--cpu-node", gpus=gpus)
        assert refused.value.field == "--cpu-node"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "nodes"),
        ([], ""),
        ({"nodes": {}}, "nodes"),
        ({"nodes": {"small": NODES["small"] | {"per_hour": -1}}}, "nodes.small.per_hour"),
        ({"nodes": {"small": NODES["small"] | {"per_hour": float("nan")}}}, "nodes.small.per_hour"),
        ({"nodes": {"small": NODES["small"] | {"ram": 1}}}, "nodes.small.ram"),
        ({"nodes": {"small": {"per_hour": 1}}}, "nodes.small.cores"),
        ({"currency": "euro", "nodes": NODES}, "currency"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, document: object, field: str) -> None:
    """The error names the option, the file and the field."""
    with pytest.raises(ConfigError) as refused:
        read_prices(written(tmp_path / "prices.yaml", document))
    assert refused.value.field.startswith("--prices prices.yaml")
    assert refused.value.field.endswith(field)
