"""Tests of the rule that a stage may reserve GPUs only if its engine uses them."""

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
    """`num_gpus` of a stage whose engine runs on the CPU is refused, and the error names section, field and engine."""
    with pytest.raises(ConfigError) as refused:
        parse_settings({section: {**stage, "resources": ONE_GPU}})
    assert refused.value.field == f"args.{section}"
    assert (
        f"resources.num_gpus must be 0: {owner} runs on the CPU; only llm with engine vllm uses a GPU"
        in refused.value.message
    )


@pytest.mark.parametrize("section", ["stt", "llm", "tts"])
def test_an_emulated_engine_may_reserve_a_gpu(section: str) -> None:
    """An emulated engine may reserve a GPU, because tests place it on GPUs that are declared to Ray and not real."""
    settings = parse_settings({section: {"engine": "emulated", "resources": ONE_GPU}})
    assert getattr(settings, section).resources.num_gpus == 1


def test_vllm_may_reserve_a_gpu() -> None:
    """The engine vLLM, the only real engine that uses a GPU, may reserve one."""
    assert parse_settings({"llm": {"engine": "vllm", "resources": ONE_GPU}}).llm.reservation.num_gpus == 1


def test_no_stage_reserves_a_gpu_by_default() -> None:
    """By default no stage reserves a GPU, so the defaults run on a machine without one."""
    settings = Settings()
    stages = (settings.host, settings.vad, settings.turn_detector, settings.stt, settings.llm, settings.tts)
    assert not any(stage.resources.num_gpus for stage in stages)
