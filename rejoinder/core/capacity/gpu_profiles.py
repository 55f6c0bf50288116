"""What each of the latency guide's cards (section 4.2) can run in vLLM: which number formats, and what to default to.

Memory and the guide's words are in `rejoinder.core.capacity.hardware`. Compute capabilities are NVIDIA's; what vLLM
needs of
them is its own `get_min_capability` of each method (0.32), to which tests/vllm/test_vllm_arguments.py holds this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rejoinder.core.capacity.hardware import GPUS, Gpu, weights_gb

GpuName = Literal["h100", "a100", "l4", "a10g", "t4"]
Quantization = Literal["none", "fp8", "fp8_weights", "int8", "awq", "gptq"]

BFLOAT16_CAPABILITY = 80
"""Ampere; before it there is float16 only."""
FP8_CAPABILITY = 89
"""Ada and Hopper multiply in fp8."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to store weights. `argument`: vLLM's name for it. `checkpoint`: the weights must have been made so
    beforehand; else vLLM converts any model while it loads. `precision`: the guide's row (4.2) that it falls under.
    """

    bits: int
    least_capability: int
    argument: str | None
    checkpoint: bool
    precision: str
    note: str
    below_capability: int = 1000


METHODS: dict[Quantization, Method] = {
    "none": Method(
        16, least_capability=60, argument=None, checkpoint=False, precision="FP16", note="weights as they are"
    ),
    "fp8": Method(
        8,
        least_capability=FP8_CAPABILITY,
        argument="fp8",
        checkpoint=False,
        precision="INT8",
        note="weights and arithmetic in fp8 (the guide's 2.3.3 and 6.3)",
    ),
    # The same argument: a card that multiplies in fp8 would.
    "fp8_weights": Method(
        8,
        least_capability=75,
        argument="fp8",
        checkpoint=False,
        precision="INT8",
        note="fp8 weights, 16-bit arithmetic: half the memory",
        below_capability=FP8_CAPABILITY,
    ),
    "int8": Method(
        8,
        least_capability=75,
        argument="compressed-tensors",
        checkpoint=True,
        precision="INT8",
        note="8-bit weights and activations (W8A8)",
    ),
    "awq": Method(
        4,
        least_capability=75,
        argument="awq",
        checkpoint=True,
        precision="INT4",
        note="4-bit weights, 16-bit arithmetic",
    ),
    "gptq": Method(
        4,
        least_capability=60,
        argument="gptq",
        checkpoint=True,
        precision="INT4",
        note="4-bit weights, 16-bit arithmetic",
    ),
}


@dataclass(frozen=True, slots=True)
class GpuProfile:
    """A card. `accelerator`: how Ray labels a node that has it (`ray.io/accelerator-type`).

    `quantization`: what is used unless the configuration says otherwise: fp8 where the card multiplies in it, because
    vLLM then halves any model while loading it; 16 bits elsewhere, since every other format needs a checkpoint.
    """

    name: GpuName
    card: Gpu
    architecture: str
    capability: int
    accelerator: str

    @property
    def dtype(self) -> Literal["bfloat16", "float16"]:
        return "bfloat16" if self.capability >= BFLOAT16_CAPABILITY else "float16"

    @property
    def quantization(self) -> Quantization:
        return "fp8" if self.capability >= FP8_CAPABILITY else "none"

    @property
    def runs(self) -> tuple[Quantization, ...]:
        """The number formats that it has arithmetic or kernels for."""
        return tuple(
            name
            for name, method in METHODS.items()
            if method.least_capability <= self.capability < method.below_capability
        )

    def usable_gb(self, share: float, cards: int = 1) -> float:
        """Memory that vLLM may take of `cards` such cards."""
        return self.card.vram_gb * share * cards

    def room_gb(self, parameters_b: float, quantization: Quantization, share: float, cards: int = 1) -> float:
        """What a model's weights leave for states (KV cache); negative if they do not fit."""
        return self.usable_gb(share, cards) - weights_gb(parameters_b, METHODS[quantization].bits)


_CARDS = {card.name.lower(): card for card in GPUS}
GPU_PROFILES: dict[GpuName, GpuProfile] = {
    profile.name: profile
    for profile in (
        GpuProfile("h100", card=_CARDS["h100"], architecture="Hopper", capability=90, accelerator="H100"),
        GpuProfile("a100", card=_CARDS["a100"], architecture="Ampere", capability=80, accelerator="A100"),
        GpuProfile("l4", card=_CARDS["l4"], architecture="Ada Lovelace", capability=89, accelerator="L4"),
        GpuProfile("a10g", card=_CARDS["a10g"], architecture="Ampere", capability=86, accelerator="A10G"),
        GpuProfile("t4", card=_CARDS["t4"], architecture="Turing", capability=75, accelerator="T4"),
    )
}
