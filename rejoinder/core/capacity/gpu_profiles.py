"""Number formats that vLLM can run on each GPU of the latency guide (section 4.2), and the default format.

The guide's table of GPUs, with their memory, is in `rejoinder.core.capacity.hardware`. Compute capabilities are
NVIDIA's. The minimum capability of each number format is what vLLM 0.32 returns from `get_min_capability`.
tests/vllm/test_vllm_arguments.py compares this table with vLLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rejoinder.core.capacity.hardware import GPUS, Gpu, weights_gb

GpuName = Literal["h100", "a100", "l4", "a10g", "t4"]
Quantization = Literal["none", "fp8", "fp8_weights", "int8", "awq", "gptq"]

BFLOAT16_CAPABILITY = 80
"""Compute capability 8.0 (Ampere). Older GPUs support float16 only."""
FP8_CAPABILITY = 89
"""Compute capability 8.9 (Ada). It and Hopper support fp8 arithmetic."""


@dataclass(frozen=True, slots=True)
class Method:
    """A number format for the weights of a model, which vLLM calls a quantization method.

    Attributes:
        bits: Bits per weight.
        least_capability: Lowest compute capability of a GPU that can run it, as ten times the version (80 for 8.0).
        argument: Value of vLLM's argument `quantization`. None to leave vLLM's default.
        checkpoint: Whether the checkpoint must have this format. If not, vLLM converts any model while it loads it.
        precision: The number format in the guide's section 4.2 that it corresponds to.
        note: A description for reports.
        below_capability: A GPU of this compute capability or a higher one cannot use it, because vLLM would choose
            another number format there. 1000 for no limit.
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
    # vLLM has one argument for "fp8" and "fp8_weights". On a GPU with fp8 arithmetic it always means "fp8", so
    # "fp8_weights" is limited to older GPUs.
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
    """A GPU, and the number formats that vLLM can run on it.

    Attributes:
        name: Its name in the settings.
        card: Its row in the guide's table of GPUs.
        architecture: NVIDIA's name of its architecture.
        capability: Its compute capability, as ten times the version.
        accelerator: Ray's label of a node that has it (`ray.io/accelerator-type`).
    """

    name: GpuName
    card: Gpu
    architecture: str
    capability: int
    accelerator: str

    @property
    def dtype(self) -> Literal["bfloat16", "float16"]:
        """The 16-bit number format in which vLLM computes on this GPU."""
        return "bfloat16" if self.capability >= BFLOAT16_CAPABILITY else "float16"

    @property
    def quantization(self) -> Quantization:
        """The default number format: fp8 where the GPU supports fp8 arithmetic, else 16 bits.

        fp8 halves the memory of any model, because vLLM converts the weights while it loads them. The formats int8, awq
        and gptq are never the default, because they need a special checkpoint.
        """
        return "fp8" if self.capability >= FP8_CAPABILITY else "none"

    @property
    def runs(self) -> tuple[Quantization, ...]:
        """The number formats of weights that vLLM can run on this GPU."""
        return tuple(
            name
            for name, method in METHODS.items()
            if method.least_capability <= self.capability < method.below_capability
        )

    def usable_gb(self, share: float, cards: int = 1) -> float:
        """Return the memory in GB that vLLM may use on `cards` GPUs of this type.

        Args:
            share: Share of each GPU's memory that vLLM may use, 0 to 1.
            cards: Number of GPUs.
        """
        return self.card.vram_gb * share * cards

    def room_gb(self, parameters_b: float, quantization: Quantization, share: float, cards: int = 1) -> float:
        """Return the memory in GB that the weights of a model leave for the KV cache.

        It is negative if the weights do not fit.

        Args:
            parameters_b: Parameters of the model, in billions.
            quantization: The number format of its weights.
            share: Share of each GPU's memory that vLLM may use.
            cards: Number of GPUs.
        """
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
