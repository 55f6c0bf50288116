"""Tests of the estimate of a replica's GPU memory."""

from __future__ import annotations

import pytest

from rejoinder.core.capacity.gpu_memory import CONTEXT_BYTES, WEIGHT_FACTORS, least_share, needed_bytes
from rejoinder.core.settings.settings import parse_settings

GIB = 1024**3


def test_the_memory_is_the_context_and_one_and_a_half_times_the_weights() -> None:
    """3 GiB of weights need 4.5 GiB and 0.5 GiB for CUDA's context."""
    assert needed_bytes(3 * GIB) == 5 * GIB
    assert needed_bytes(0) == CONTEXT_BYTES == GIB // 2


@pytest.mark.parametrize(("needed", "total", "share"), [(4, 16, 0.25), (5, 16, 0.32), (16, 16, 1.0), (1, 1000, 0.01)])
def test_the_least_share_is_rounded_up(needed: int, total: int, share: float) -> None:
    """The share that an error suggests always suffices: it is rounded up to hundredths."""
    assert least_share(needed * GIB, total * GIB) == share
    assert share * total >= needed


@pytest.mark.parametrize("compute_type", ["auto", "int8", "float32", "float16", "int8_float16"])
def test_every_number_format_of_whisper_has_a_factor(compute_type: str) -> None:
    """The memory of each value of `stt.compute_type` can be estimated."""
    stage = parse_settings({"stt": {"compute_type": compute_type, "resources": {"num_gpus": 1}}}).stt
    assert 0 < WEIGHT_FACTORS[stage.weights] <= 2
