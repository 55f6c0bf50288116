"""The configuration of vLLM inside the `Llm` replica, and what vLLM is told of it.

Defaults that the latency guide gives (sections 2.3.3 and 6.3) are its values; a value of "auto" or 0 is decided by the
card, or by its absence: without one vLLM's CPU build runs, on a few cores.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rejoinder.core.capacity.gpu_profiles import GPU_PROFILES, METHODS, GpuName, GpuProfile, Quantization
from rejoinder.core.settings.section import Count, Fraction, Positive, Section

VLLM_RELEASE = (0, 32)
"""The release that the arguments here, the profiles and the tests hold for."""
GPU_SEQUENCES = 256
"""The guide's --max-num-seqs (6.3)."""
CPU_SEQUENCES = 8
"""On a few cores answers that decode together share their memory bandwidth: more would all be slow."""
CPU_BLOCK_TOKENS = 32
"""vLLM's own block on a CPU is 128 tokens, as long as a whole first prompt: nothing of it would ever be found again.
Its kernels want a multiple of 32."""
BYTES_PER_GB = 1024**3


class SpeculativeDecoding(Section):
    """Tokens guessed ahead and checked in one step; the answer stays what it would have been.

    `eagle3` guesses with a small head that was trained for the model (`model`: its folder or hub repository); `ngram`
    with what the prompt says, and needs no weights. The guide's `--num-speculative-tokens` is 1 (2.3.3).
    """

    method: Literal["none", "eagle3", "ngram"] = "none"
    model: str = ""
    num_speculative_tokens: Count = 1
    # Of `ngram`: the longest run of words that is looked up.
    prompt_lookup_max: Count = 4

    @model_validator(mode="after")
    def _complete(self) -> SpeculativeDecoding:
        if self.method == "eagle3" and not self.model:
            raise ValueError("method eagle3 needs model: the EAGLE-3 head that was trained for llm.model")
        if self.method != "eagle3" and self.model:
            raise ValueError(f"model {self.model} is for method eagle3; method is {self.method}")
        return self

    def arguments(self) -> dict[str, Any] | None:
        """vLLM's `speculative_config`."""
        if self.method == "none":
            return None
        options: dict[str, Any] = {"method": self.method, "num_speculative_tokens": self.num_speculative_tokens}
        if self.method == "eagle3":
            return {**options, "model": self.model}
        return {**options, "prompt_lookup_max": self.prompt_lookup_max}


class VllmSettings(Section):
    """`llm.vllm`. `gpu` names the card that the replica runs on: the replica is placed there, and what the card cannot
    do is refused; "none" is vLLM's CPU build, or a card that is not in the guide (then `llm.resources` places it).
    """

    gpu: Literal["none", GpuName] = "none"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: Literal["auto", Quantization] = "auto"
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    # Cards that share one model; the replica gets so many.
    tensor_parallel_size: Count = 1
    # Answers that decode together (0: 256 on a card, 8 without); vLLM holds others back when its memory is full.
    max_num_seqs: int = Field(0, ge=0, le=4096)
    max_model_len: int = Field(8192, ge=256)
    gpu_memory_utilization: Fraction = 0.9
    enable_prefix_caching: bool = True
    # Tokens of one piece of the prefix cache (0: vLLM's own on a card, 32 without).
    block_tokens: int = Field(0, ge=0, le=256, multiple_of=16)
    # No compiled graphs: a quick start and slower tokens (unset: on without a card, off with one).
    enforce_eager: bool | None = None
    speculative: SpeculativeDecoding = SpeculativeDecoding()
    # Without a card: memory for states.
    cpu_kv_cache_gb: Positive = 1.0
    # Of a hub repository: which commit or tag (empty: the newest).
    revision: str = ""
    # Billions; if known, weights that cannot fit the card are refused before anything is loaded.
    parameters_b: float = Field(0, ge=0)
    # Given to the model's chat template, for example {enable_thinking: false}: thinking aloud is not for the phone.
    chat_template: dict[str, bool | int | str] = Field(default_factory=dict)

    @property
    def profile(self) -> GpuProfile | None:
        return None if self.gpu == "none" else GPU_PROFILES[self.gpu]

    @property
    def stored_as(self) -> Quantization:
        """The number format of the weights, with "auto" decided."""
        if self.quantization != "auto":
            return self.quantization
        return self.profile.quantization if self.profile else "none"

    def places(self, *, on_card: bool) -> int:
        """Answers that decode together."""
        return self.max_num_seqs or (GPU_SEQUENCES if on_card else CPU_SEQUENCES)

    @model_validator(mode="after")
    def _card_can(self) -> VllmSettings:
        card = self.profile
        if card is None:
            return self
        if self.stored_as not in card.runs:
            raise ValueError(f"quantization {self.stored_as} does not run on a {card.card.name}{_instead(card)}")
        if self.dtype == "bfloat16" and card.dtype != "bfloat16":
            raise ValueError(f"dtype bfloat16 does not run on a {card.card.name} ({card.architecture}): use float16")
        if self.kv_cache_dtype == "fp8" and "fp8" not in card.runs:
            raise ValueError(f"kv_cache_dtype fp8 does not run on a {card.card.name}: use auto")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> VllmSettings:
        card, cards = self.profile, self.tensor_parallel_size
        if card and card.room_gb(self.parameters_b, self.stored_as, self.gpu_memory_utilization, cards) <= 0:
            usable = card.usable_gb(self.gpu_memory_utilization, cards)
            bits = METHODS[self.stored_as].bits
            raise ValueError(
                f"{self.parameters_b:g} billion weights of {bits} bits do not fit the {usable:.1f} GB of {cards} "
                f"{card.card.name}: use a quantization of fewer bits, or a larger tensor_parallel_size"
            )
        return self


def engine_arguments(model: str, settings: VllmSettings, *, on_card: bool) -> dict[str, Any]:
    """The arguments of vLLM's AsyncEngineArgs; `model` is a folder or a hub repository.

    `on_card`: whether the replica has one, known to the configuration or not.
    """
    card = settings.profile
    dtype = settings.dtype if settings.dtype != "auto" or card is None else card.dtype
    eager = settings.enforce_eager
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": dtype,
        "quantization": METHODS[settings.stored_as].argument,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "max_num_seqs": settings.places(on_card=on_card),
        "max_model_len": settings.max_model_len,
        "enable_prefix_caching": settings.enable_prefix_caching,
        "enforce_eager": not on_card if eager is None else eager,
        "enable_log_requests": False,
    }
    block = settings.block_tokens or (0 if on_card else CPU_BLOCK_TOKENS)
    if block:
        arguments["block_size"] = block
    if on_card:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
    else:
        arguments["kv_cache_memory_bytes"] = int(settings.cpu_kv_cache_gb * BYTES_PER_GB)
    if settings.tensor_parallel_size > 1:
        # The cards are the replica's own; with Ray's executor vLLM would ask the cluster for them a second time.
        arguments["distributed_executor_backend"] = "mp"
    if settings.revision:
        arguments["revision"] = settings.revision
    if guesses := settings.speculative.arguments():
        arguments["speculative_config"] = guesses
    return arguments


def process_environment(threads: int, *, on_card: bool) -> dict[str, str]:
    """What vLLM reads from the environment of the replica's process, and has no argument for."""
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        # A forked engine would inherit the replica's sockets and locks; in a Ray actor vLLM spawns anyway.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if not on_card:
        # Bound to cores of its own choice, two replicas on a machine would both choose the first ones.
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    return environment


def _instead(card: GpuProfile) -> str:
    return f" ({card.architecture}): it runs {', '.join(card.runs)}"
