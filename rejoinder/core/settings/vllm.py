"""Settings of vLLM inside the `Llm` replica, and the vLLM arguments and environment variables made from them.

If the latency guide states a value for a setting (sections 2.3.3 and 6.3), this value is the default. For a setting of
"auto" or 0, the value depends on the GPU. Without a GPU, vLLM's CPU build runs on a few cores.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rejoinder.core.capacity.gpu_profiles import GPU_PROFILES, METHODS, GpuName, GpuProfile, Quantization
from rejoinder.core.settings.section import Count, Fraction, Positive, Section

VLLM_RELEASE = (0, 32)
"""vLLM release that the arguments here, the GPU profiles and the tests are valid for."""
GPU_SEQUENCES = 256
"""Default of `max_num_seqs` on a GPU: the latency guide's --max-num-seqs (section 6.3)."""
CPU_SEQUENCES = 8
"""Default of `max_num_seqs` on the CPU. Answers that decode together share the memory bandwidth, so more would be slow.
"""
CPU_BLOCK_TOKENS = 32
"""Default of `block_tokens` on the CPU. vLLM's own 128 tokens are about a whole first prompt, so no prefix would be
reused. Its kernels need a multiple of 32.
"""
BYTES_PER_GB = 1024**3


class SpeculativeDecoding(Section):
    """Speculative decoding: tokens are guessed cheaply, and the model verifies them in one step.

    It makes answers faster and does not change their text.
    """

    method: Literal["none", "eagle3", "ngram"] = "none"
    """`eagle3` drafts with a small head that was trained for the model; `ngram` copies from the prompt, without
    weights. Off by default: EAGLE-3 needs a head for the model in use.
    """
    model: str = ""
    """EAGLE-3 head: a folder or a hub repository. Required for `eagle3`, not allowed otherwise."""
    num_speculative_tokens: Count = 1
    """Number of draft tokens per step. The default is the latency guide's (section 2.3.3)."""
    prompt_lookup_max: Count = 4
    """Maximum length, in tokens, of the sequence that `ngram` looks up in the prompt."""

    @model_validator(mode="after")
    def _complete(self) -> SpeculativeDecoding:
        if self.method == "eagle3" and not self.model:
            raise ValueError("method eagle3 needs model: the EAGLE-3 head that was trained for llm.model")
        if self.method != "eagle3" and self.model:
            raise ValueError(f"model {self.model} is for method eagle3; method is {self.method}")
        return self

    def arguments(self) -> dict[str, Any] | None:
        """Return the value of vLLM's argument `speculative_config`; None if the method is "none"."""
        if self.method == "none":
            return None
        options: dict[str, Any] = {"method": self.method, "num_speculative_tokens": self.num_speculative_tokens}
        if self.method == "eagle3":
            return {**options, "model": self.model}
        return {**options, "prompt_lookup_max": self.prompt_lookup_max}


class VllmSettings(Section):
    """Settings of `llm.engine: vllm`. Validation refuses a number format that the GPU in `gpu` cannot run."""

    gpu: Literal["none", GpuName] = "none"
    """GPU that each replica runs on; Ray places the replica on a node that has it.
    "none": vLLM's CPU build, or a GPU that is not in the latency guide, which `llm.resources` then reserves.
    """
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the arithmetic. "auto": the GPU's own, or vLLM's choice without a known GPU."""
    quantization: Literal["auto", Quantization] = "auto"
    """Number format of the weights. "auto": fp8 on a GPU that supports fp8 arithmetic, else as the model is stored."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """Number format of the KV cache. "auto": the same as `dtype`. `fp8` halves its memory."""
    tensor_parallel_size: Count = 1
    """Number of GPUs that share one model. Each replica reserves this many."""
    max_num_seqs: int = Field(0, ge=0, le=4096)
    """Maximum number of answers that decode together. 0: 256 on a GPU (latency guide, section 6.3), 8 on the CPU. vLLM
    queues further requests, and also queues requests while the KV cache is full.
    """
    max_model_len: int = Field(8192, ge=256)
    """Longest prompt and answer together, in tokens. The default is the latency guide's (section 6.3)."""
    gpu_memory_utilization: Fraction = 0.9
    """Share of the GPU's memory for weights and KV cache. It must not exceed a fractional `num_gpus`."""
    enable_prefix_caching: bool = True
    """Keep the KV cache of earlier prompts, so that a turn computes only its new tokens."""
    block_tokens: int = Field(0, ge=0, le=256, multiple_of=16)
    """Number of tokens in one block of the prefix cache. 0: vLLM's default on a GPU, 32 on the CPU."""
    enforce_eager: bool | None = None
    """Do not compile graphs: a replica starts faster and decodes slower. Unset: true on the CPU, false on a GPU."""
    speculative: SpeculativeDecoding = SpeculativeDecoding()
    """Speculative decoding, off by default."""
    cpu_kv_cache_gb: Positive = 1.0
    """Memory for the KV cache in GiB, if the replica has no GPU."""
    revision: str = ""
    """Commit or tag of the hub repository. Empty: the newest commit."""
    parameters_b: float = Field(0, ge=0)
    """Parameters of the model in billions. If it is given, weights that do not fit the GPU are refused at start.
    0: unknown.
    """
    chat_template: dict[str, bool | int | str] = Field(default_factory=dict)
    """Arguments of the model's chat template, for example {enable_thinking: false}, which avoids spoken reasoning."""

    @property
    def profile(self) -> GpuProfile | None:
        """Profile of the configured GPU, or None if `gpu` is "none"."""
        return None if self.gpu == "none" else GPU_PROFILES[self.gpu]

    @property
    def weights_format(self) -> Quantization:
        """Number format of the weights. For "auto", it is the default of the configured GPU, or "none" without one."""
        if self.quantization != "auto":
            return self.quantization
        return self.profile.quantization if self.profile else "none"

    def places(self, *, on_gpu: bool) -> int:
        """Return the maximum number of answers that decode together. `on_gpu`: True if the replica has a GPU."""
        return self.max_num_seqs or (GPU_SEQUENCES if on_gpu else CPU_SEQUENCES)

    @model_validator(mode="after")
    def _gpu_supports(self) -> VllmSettings:
        gpu = self.profile
        if gpu is None:
            return self
        if self.weights_format not in gpu.runs:
            raise ValueError(
                f"quantization {self.weights_format} does not run on a {gpu.card.name} ({gpu.architecture}): "
                f"it runs {', '.join(gpu.runs)}"
            )
        if self.dtype == "bfloat16" and gpu.dtype != "bfloat16":
            raise ValueError(f"dtype bfloat16 does not run on a {gpu.card.name} ({gpu.architecture}): use float16")
        if self.kv_cache_dtype == "fp8" and "fp8" not in gpu.runs:
            raise ValueError(f"kv_cache_dtype fp8 does not run on a {gpu.card.name}: use auto")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> VllmSettings:
        gpu, count = self.profile, self.tensor_parallel_size
        if gpu and gpu.room_gb(self.parameters_b, self.weights_format, self.gpu_memory_utilization, count) <= 0:
            usable = gpu.usable_gb(self.gpu_memory_utilization, count)
            bits = METHODS[self.weights_format].bits
            raise ValueError(
                f"{self.parameters_b:g} billion weights of {bits} bits do not fit the {usable:.1f} GB of {count} "
                f"{gpu.card.name}: use a quantization of fewer bits, or a larger tensor_parallel_size"
            )
        return self


def engine_arguments(model: str, settings: VllmSettings, *, on_gpu: bool) -> dict[str, Any]:
    """Return the keyword arguments for vLLM's AsyncEngineArgs.

    Args:
        model: Folder, or Hugging Face hub repository (owner/name), of the model.
        settings: The section `llm.vllm`.
        on_gpu: True if the replica has a GPU, whether or not `settings.gpu` names it.
    """
    gpu = settings.profile
    dtype = settings.dtype if settings.dtype != "auto" or gpu is None else gpu.dtype
    eager = settings.enforce_eager
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": dtype,
        "quantization": METHODS[settings.weights_format].argument,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "max_num_seqs": settings.places(on_gpu=on_gpu),
        "max_model_len": settings.max_model_len,
        "enable_prefix_caching": settings.enable_prefix_caching,
        "enforce_eager": not on_gpu if eager is None else eager,
        "enable_log_requests": False,
    }
    block = settings.block_tokens or (0 if on_gpu else CPU_BLOCK_TOKENS)
    if block:
        arguments["block_size"] = block
    if on_gpu:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
    else:
        arguments["kv_cache_memory_bytes"] = int(settings.cpu_kv_cache_gb * BYTES_PER_GB)
    if settings.tensor_parallel_size > 1:
        # vLLM's "mp" executor uses the GPUs that Ray has already given to this replica. vLLM's Ray executor would
        # request them from the cluster a second time.
        arguments["distributed_executor_backend"] = "mp"
    if settings.revision:
        arguments["revision"] = settings.revision
    if speculative := settings.speculative.arguments():
        arguments["speculative_config"] = speculative
    return arguments


def process_environment(threads: int, *, on_gpu: bool) -> dict[str, str]:
    """Return the environment variables, by name, that configure vLLM where it has no argument.

    Args:
        threads: Threads of the CPU build; ignored on a GPU.
        on_gpu: True if the replica has a GPU.
    """
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        # A forked engine process would inherit the replica's sockets and locks. In a Ray actor vLLM uses spawn by
        # default; the variable makes it do so outside of Ray too.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if not on_gpu:
        # By default vLLM binds its threads to the first cores, so two replicas on one machine would share these cores.
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    return environment
