"""Estimate of the GPU memory that a replica needs, from the sizes of its model files."""

from __future__ import annotations

CONTEXT_BYTES = 512 * 1024**2
"""Memory of a process on a GPU before it loads a model: CUDA's context and the kernels of its libraries. An estimate,
not a measurement: `scripts/device-check` prints what a stage really takes.
"""

WORKING_FACTOR = 1.5
"""Memory for weights, activations and caches, as a multiple of the bytes of the weights. An estimate too."""

WEIGHT_FACTORS = {"float32": 2.0, "float16": 1.0, "int8_float16": 0.5, "int8": 0.5}
"""Size of a Whisper model in memory by its number format, as a multiple of the float16 file that is usual on the hub.
"""


def needed_bytes(weights: float) -> int:
    """Return the estimated GPU memory in bytes of a replica whose weights take `weights` bytes on the GPU."""
    return int(CONTEXT_BYTES + WORKING_FACTOR * weights)


def least_share(needed: int, total: int) -> float:
    """Return the smallest share of a GPU, in hundredths, that has `needed` of its `total` bytes."""
    return -(-needed * 100 // total) / 100
