"""GPUs are reserved only for engines that use them."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings, parse_settings

ONE_GPU = {"num_gpus": 1}
HOSTED = {"engine": "openai_api", "base_url": "http://127.0.0.1:8001/v1"}


@pytest.mark.parametrize(
    ("section", "stage", "owner"),
    [
        ("vad", {}, "this stage"),
        ("turn_detector", {}, "this stage"),
        ("stt", {}, "engine whisper"),
        ("llm", {}, "engine embedded"),
        ("llm", HOSTED, "engine openai_api"),
        ("llm_backup", HOSTED, "engine openai_api"),
        ("tts", {"engine": "piper"}, "engine piper"),
        ("answer_cache", {}, "this stage"),
        ("host", {}, "the session host"),
    ],
)
def test_a_cpu_engine_refuses_a_gpu(section: str, stage: dict[str, Any], owner: str) -> None:
    """The error names the section, the field, the engine and the fix."""
    with pytest.raises(ConfigError) as refused:
        parse_settings({section: {**stage, "resources": ONE_GPU}})
    assert refused.value.field == f"args.{section}"
    assert (
        f"resources.num_gpus must be 0: {owner} runs on the CPU; only llm with engine vllm uses a GPU"
        in refused.value.message
    )


@pytest.mark.parametrize("section", ["stt", "llm", "tts"])
def test_an_emulated_engine_may_reserve_a_gpu(section: str) -> None:
    """Placement on GPUs is tested with emulated engines, on GPUs that are only declared."""
    settings = parse_settings({section: {"engine": "emulated", "resources": ONE_GPU}})
    assert getattr(settings, section).resources.num_gpus == 1


def test_vllm_may_reserve_a_gpu() -> None:
    """vLLM is the one real engine that uses a GPU."""
    assert parse_settings({"llm": {"engine": "vllm", "resources": ONE_GPU}}).llm.reservation.num_gpus == 1


def test_no_stage_reserves_a_gpu_by_default() -> None:
    """The defaults run on a machine without a GPU."""
    settings = Settings()
    stages = (settings.host, settings.vad, settings.turn_detector, settings.stt, settings.llm, settings.tts)
    assert not any(stage.resources.num_gpus for stage in stages)
