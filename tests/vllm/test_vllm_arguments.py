"""vLLM accepts the engine arguments of every GPU profile (supported card with its number formats).

The minimum compute capability that a profile requires of a card is at least that of vLLM.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from rejoinder.core.capacity.gpu_profiles import FP8_CAPABILITY, GPU_PROFILES, METHODS, GpuProfile
from rejoinder.core.settings.vllm import SpeculativeDecoding, VllmSettings, engine_arguments

pytestmark = pytest.mark.vllm

MODEL = "Qwen/Qwen3-8B"
HEAD = "AngelSlim/Qwen3-8B_eagle3"
CASES = [
    pytest.param(profile, quantization, id=f"{profile.name}-{quantization}")
    for profile in GPU_PROFILES.values()
    for quantization in profile.runs
]


def command_line(arguments: dict[str, Any]) -> list[str]:
    """Return engine arguments as words of `vllm serve`'s command line. Arguments that are None are left out."""
    words = []
    for name, value in arguments.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif isinstance(value, dict):
            words += [option, json.dumps(value)]
        elif value is not None:
            words += [option, str(value)]
    return words


def parsed(arguments: dict[str, Any]) -> Any:
    """Return the arguments as vLLM's command-line parser reads them."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())
    return AsyncEngineArgs.from_cli_args(parser.parse_args(command_line(arguments)))


@pytest.mark.parametrize(("profile", "quantization"), CASES)
def test_every_profile_is_accepted(profile: GpuProfile, quantization: Any) -> None:
    """vLLM's parser and constructor accept each card with each of its number formats, and with an EAGLE-3 head."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    settings = VllmSettings(
        gpu=profile.name,
        quantization=quantization,
        kv_cache_dtype="fp8" if "fp8" in profile.runs else "auto",
        tensor_parallel_size=2,
        block_tokens=16,
        revision="main",
        speculative=SpeculativeDecoding(method="eagle3", model=HEAD),
    )
    arguments = engine_arguments(MODEL, settings, on_gpu=True)
    read, made = parsed(arguments), AsyncEngineArgs(**arguments)
    for name, value in arguments.items():
        assert getattr(read, name) == value, name
        assert getattr(made, name) == value, name


def test_the_arguments_without_a_card_are_accepted() -> None:
    """vLLM's parser accepts the CPU build's arguments, with speculative decoding from the prompt (ngram)."""
    arguments = engine_arguments(MODEL, VllmSettings(speculative=SpeculativeDecoding(method="ngram")), on_gpu=False)
    read = parsed(arguments)
    assert {name: getattr(read, name) for name in arguments} == arguments


@pytest.mark.parametrize("change", [{"no_such_argument": 1}, {"kv_cache_dtype": "fp9"}, {"max_num_seqs": "many"}])
def test_the_parser_refuses_wrong_arguments(change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The parser refuses an unknown name, a value outside the choices and a word for a number.

    A parser that accepted such arguments would prove nothing about the valid ones.
    """
    with pytest.raises(SystemExit):
        parsed({**engine_arguments(MODEL, VllmSettings(), on_gpu=False), **change})
    assert next(iter(change)).replace("_", "-") in capsys.readouterr().err


def test_speculative_decoding_has_valid_names() -> None:
    """The keys and methods of `speculative_config`, which vLLM checks only at engine start, are valid."""
    from typing import get_args

    from vllm.config import SpeculativeConfig
    from vllm.config.speculative import SpeculativeMethod

    methods = json.dumps([str(part) for part in get_args(SpeculativeMethod)])
    for speculative in (SpeculativeDecoding(method="eagle3", model=HEAD), SpeculativeDecoding(method="ngram")):
        arguments = speculative.arguments() or {}
        assert arguments.keys() <= SpeculativeConfig.__dataclass_fields__.keys()
        assert arguments["method"] in methods


def test_the_profiles_agree_with_vllm_on_what_a_card_needs() -> None:
    """Our minimum compute capability for each quantization method is at least the minimum that vLLM requires."""
    from vllm.model_executor.layers.quantization import get_quantization_config
    from vllm.model_executor.layers.quantization.compressed_tensors.schemes import (
        CompressedTensorsW8A8Fp8,
        CompressedTensorsW8A8Int8,
    )

    for name, method in METHODS.items():
        if method.argument is None:
            continue
        needed = get_quantization_config(method.argument).get_min_capability()
        assert method.least_capability >= needed, name
    assert METHODS["int8"].least_capability == CompressedTensorsW8A8Int8.get_min_capability()
    assert CompressedTensorsW8A8Fp8.get_min_capability() == FP8_CAPABILITY
