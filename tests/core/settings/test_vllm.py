"""Tests of the engine arguments that follow from the vLLM settings and the GPU, and of settings that are refused."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rejoinder.core.capacity.gpu_profiles import GPU_PROFILES, METHODS, GpuName, GpuProfile, Quantization
from rejoinder.core.capacity.hardware import GPUS, PRECISIONS, weights_gb
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import LlmSettings, Resources, SpeculativeDecoding, VllmSettings, parse_settings
from rejoinder.core.settings.stages import ACCELERATOR_LABEL
from rejoinder.core.settings.vllm import CPU_SEQUENCES, GPU_SEQUENCES, engine_arguments, process_environment

NAMES: tuple[GpuName, ...] = get_args(GpuName)
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
cards = st.sampled_from([GPU_PROFILES[name] for name in NAMES])


def refusal(llm: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_settings({"llm": {"engine": "vllm", **llm}})
    return caught.value


def test_every_gpu_of_the_guide_has_a_profile() -> None:
    """Each of the latency guide's five GPUs has a profile.

    The precision of each number format is one of the guide's table.
    """
    assert [profile.card for profile in GPU_PROFILES.values()] == list(GPUS)
    assert tuple(GPU_PROFILES) == NAMES
    assert {method.precision for method in METHODS.values()} <= {precision.name for precision in PRECISIONS}
    assert tuple(METHODS) == QUANTIZATIONS


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("h100", ("none", "fp8", "int8", "awq", "gptq")),
        ("a100", ("none", "fp8_weights", "int8", "awq", "gptq")),
        ("l4", ("none", "fp8", "int8", "awq", "gptq")),
        ("a10g", ("none", "fp8_weights", "int8", "awq", "gptq")),
        ("t4", ("none", "fp8_weights", "int8", "awq", "gptq")),
    ],
)
def test_only_ada_and_hopper_multiply_in_fp8(name: GpuName, runs: tuple[Quantization, ...]) -> None:
    """int8 and int4 (awq, gptq) run on all five GPUs.

    Only H100 and L4 compute in fp8. The others only store weights in fp8.
    """
    assert GPU_PROFILES[name].runs == runs


@given(cards, st.sampled_from(QUANTIZATIONS))
def test_a_number_format_is_accepted_exactly_where_it_runs(card: GpuProfile, quantization: Quantization) -> None:
    """A number format that the GPU runs becomes vLLM's argument. For another, the error lists those that it runs."""
    if quantization in card.runs:
        made = VllmSettings(gpu=card.name, quantization=quantization)
        assert engine_arguments("m", made, on_gpu=True)["quantization"] == METHODS[quantization].argument
    else:
        with pytest.raises(ValidationError, match=f"{quantization} does not run on a {card.card.name}.*{card.runs[1]}"):
            VllmSettings(gpu=card.name, quantization=quantization)


@given(cards)
def test_the_defaults_of_a_gpu_run_on_it(card: GpuProfile) -> None:
    """If only the GPU's name is set, the default number format runs on the GPU without specially prepared weights."""
    arguments = engine_arguments("m", VllmSettings(gpu=card.name), on_gpu=True)
    assert arguments["dtype"] == ("float16" if card.name == "t4" else "bfloat16")
    assert arguments["quantization"] == ("fp8" if card.name in {"h100", "l4"} else None)
    assert not METHODS[card.quantization].checkpoint
    assert arguments["max_num_seqs"] == GPU_SEQUENCES
    assert not arguments["enforce_eager"]
    assert "kv_cache_memory_bytes" not in arguments


def test_without_a_gpu_the_cpu_build_gets_its_memory() -> None:
    """Without a GPU, vLLM gets the configured KV cache memory, a small batch, small blocks and no compiled graphs."""
    arguments = engine_arguments("m", VllmSettings(cpu_kv_cache_gb=1.5), on_gpu=False)
    assert arguments["kv_cache_memory_bytes"] == 1536 * 1024 * 1024
    assert arguments["max_num_seqs"] == CPU_SEQUENCES
    assert arguments["enforce_eager"]
    assert arguments["block_size"] == 32
    assert "gpu_memory_utilization" not in arguments


def test_the_environment_keeps_replicas_off_each_others_cores() -> None:
    """On the CPU, vLLM gets its number of threads, and does not bind them to cores that other replicas also use.

    vLLM's usage statistics are off.
    """
    environment = process_environment(3, on_gpu=False)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert "OMP_NUM_THREADS" not in process_environment(3, on_gpu=True)


def test_the_guides_commands_are_one_section() -> None:
    """A short `vllm` section gives the arguments of the commands in the latency guide's sections 2.3.3 and 6.3.

    They are EAGLE-3 with one draft token per step, fp8, 256 sequences of 8192 tokens, and two GPUs.
    """
    guide = {
        "gpu": "h100",
        "tensor_parallel_size": 2,
        "speculative": {"method": "eagle3", "model": "some/head"},
    }
    stage = parse_settings({"llm": {"engine": "vllm", "model": "Qwen/Qwen3-8B", "vllm": guide}}).llm
    arguments = engine_arguments(stage.model, stage.vllm, on_gpu=stage.on_gpu)
    assert arguments["speculative_config"] == {"method": "eagle3", "num_speculative_tokens": 1, "model": "some/head"}
    assert (arguments["quantization"], arguments["max_num_seqs"], arguments["max_model_len"]) == ("fp8", 256, 8192)
    assert (arguments["tensor_parallel_size"], arguments["distributed_executor_backend"]) == (2, "mp")


@given(cards, st.integers(1, 8), st.sampled_from([{}, {"tier": "gold"}]))
def test_a_replica_is_placed_on_its_gpus(card: GpuProfile, count: int, labels: dict[str, str]) -> None:
    """A replica reserves `tensor_parallel_size` GPUs on a node with Ray's GPU label and the configured labels."""
    settings = VllmSettings(gpu=card.name, tensor_parallel_size=count)
    stage = LlmSettings(engine="vllm", vllm=settings, resources=Resources(label_selector=labels))
    assert stage.reservation.num_gpus == count
    assert stage.reservation.label_selector == {ACCELERATOR_LABEL: card.accelerator, **labels}
    assert stage.on_gpu
    assert stage.ongoing_limit == GPU_SEQUENCES + stage.max_queue


def test_other_engines_are_placed_as_configured() -> None:
    """If the engine is not vLLM, its section `vllm` changes neither the reservation nor the request limit."""
    stage = LlmSettings(vllm=VllmSettings(gpu="h100"))
    assert stage.reservation == stage.resources
    assert stage.ongoing_limit == stage.max_ongoing_requests


def test_it_prefills_while_prefix_caching_is_on() -> None:
    """vLLM supports prefill only with `enable_prefix_caching`, without which the KV cache of the prompt is not kept."""
    assert LlmSettings(engine="vllm").supports_prefill
    assert not LlmSettings(engine="vllm", vllm=VllmSettings(enable_prefix_caching=False)).supports_prefill


@given(cards, st.integers(1, 4), st.floats(0.1, 200), st.floats(0.1, 1.0))
def test_weights_are_accepted_exactly_if_they_leave_room(
    card: GpuProfile, count: int, parameters_b: float, share: float
) -> None:
    """A model is refused exactly if its weights exceed `gpu_memory_utilization` of the memory of all its GPUs."""
    options: dict[str, Any] = {"tensor_parallel_size": count, "gpu_memory_utilization": share}
    needed = weights_gb(parameters_b, 8 if card.quantization == "fp8" else 16)
    if needed < card.card.vram_gb * share * count:
        VllmSettings(gpu=card.name, parameters_b=parameters_b, **options)
    else:
        with pytest.raises(ValidationError, match="do not fit"):
            VllmSettings(gpu=card.name, parameters_b=parameters_b, **options)


@pytest.mark.parametrize(
    ("llm", "field", "says"),
    [
        ({"vllm": {"gpu": "t4", "dtype": "bfloat16"}}, "args.llm.vllm", "use float16"),
        ({"vllm": {"gpu": "a100", "kv_cache_dtype": "fp8"}}, "args.llm.vllm", "kv_cache_dtype fp8 does not run"),
        ({"vllm": {"gpu": "b200"}}, "args.llm.vllm.gpu", "h100"),
        ({"vllm": {"block_tokens": 20}}, "args.llm.vllm.block_tokens", "multiple of 16"),
        ({"vllm": {"max_num_seq": 4}}, "args.llm.vllm.max_num_seq", "unknown key"),
        ({"vllm": {"speculative": {"method": "eagle3"}}}, "args.llm.vllm.speculative", "needs model"),
        ({"vllm": {"speculative": {"model": "x"}}}, "args.llm.vllm.speculative", "method is none"),
        ({"vllm": {"tensor_parallel_size": 2}}, "args.llm", "num_gpus 0 and vllm.tensor_parallel_size 2 must be equal"),
        ({"vllm": {"gpu": "l4"}, "resources": {"num_gpus": 2}}, "args.llm", "must be equal"),
        ({"vllm": {"gpu": "l4"}, "resources": {"num_gpus": 0.5}}, "args.llm", "gpu_memory_utilization 0.9"),
    ],
)
def test_a_refusal_names_field_and_fix(llm: dict[str, Any], field: str, says: str) -> None:
    """The error of a refused setting has the path of the section or field, and states what to write instead."""
    error = refusal(llm)
    assert error.field == field
    assert says in str(error)


def test_a_share_of_a_gpu_is_allowed() -> None:
    """A replica may reserve half of a GPU if it uses at most half of the GPU's memory, here 45%."""
    stage = parse_settings(
        {
            "llm": {
                "engine": "vllm",
                "vllm": {"gpu": "l4", "gpu_memory_utilization": 0.45},
                "resources": {"num_gpus": 0.5},
            }
        }
    ).llm
    assert stage.reservation.num_gpus == 0.5


def test_ngram_needs_no_weights() -> None:
    """Speculative decoding with the method `ngram` is valid without a draft model."""
    assert SpeculativeDecoding(method="ngram", num_speculative_tokens=3).arguments() == {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_max": 4,
    }
