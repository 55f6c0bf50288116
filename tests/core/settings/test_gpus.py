"""Tests of the settings that put a stage on a GPU, and of those that do not fit together."""

from __future__ import annotations

from typing import Any

import pytest

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings, parse_settings

GPU = {"num_gpus": 0.25}
HOSTED = {"engine": "openai_api", "base_url": "http://127.0.0.1:8001/v1"}
DEPLOYED = {"placement": "deployment"}
SEMANTIC = {"enabled": True, "semantic": True}


@pytest.mark.parametrize(
    ("section", "stage"),
    [
        ("vad", DEPLOYED),
        ("turn_detector", {}),
        ("stt", {}),
        ("stt", {"engine": "emulated"}),
        ("llm", {}),
        ("llm", {"engine": "vllm", "vllm": {"gpu_memory_utilization": 0.2}}),
        ("llm", {"engine": "emulated"}),
        ("llm_backup", {}),
        ("tts", {}),
        ("tts", {"engine": "emulated"}),
        ("answer_cache", SEMANTIC),
    ],
)
def test_a_stage_that_reserves_a_gpu_computes_on_it(section: str, stage: dict[str, Any]) -> None:
    """Every stage with a model may reserve a GPU, and then its engine computes there; without one it does not."""
    made = getattr(parse_settings({section: {**stage, "resources": GPU}}), section)
    assert made.on_gpu
    assert made.reservation.num_gpus == 0.25
    assert not getattr(parse_settings({section: stage}), section).on_gpu


@pytest.mark.parametrize("section", ["turn_detector", "stt", "llm", "tts"])
def test_the_device_may_be_named(section: str) -> None:
    """`device: cuda` with a reserved GPU means the same as `auto`, and `device: cpu` without one too."""
    assert getattr(parse_settings({section: {"device": "cuda", "resources": GPU}}), section).on_gpu
    assert not getattr(parse_settings({section: {"device": "cpu"}}), section).on_gpu


@pytest.mark.parametrize(
    ("section", "stage", "says"),
    [
        ("vad", {"resources": GPU}, "placement inline computes in the session host, on the CPU: set placement to"),
        ("stt", {"device": "cuda"}, "device cuda needs a GPU, .*: set resources.num_gpus, for example to 0.25"),
        ("tts", {"device": "cpu", "resources": GPU}, "set num_gpus to 0, or device to auto"),
        ("stt", {"resources": {"num_gpus": 2}}, "at most 1: a replica of engine whisper uses one GPU"),
        ("turn_detector", {"resources": {"num_gpus": 2}}, "at most 1: a replica of this stage uses one GPU"),
        ("llm", {**HOSTED, "resources": GPU}, "num_gpus must be 0: engine openai_api computes on its own server"),
        ("llm_backup", {**HOSTED, "resources": GPU}, "num_gpus must be 0: engine openai_api"),
        ("llm", {"engine": "vllm", "device": "cpu"}, "device must be auto: engine vllm does not read it"),
        ("stt", {"engine": "emulated", "device": "cuda"}, "device must be auto: engine emulated does not read it"),
        ("answer_cache", {"semantic": False, "resources": GPU}, "without semantic the answer cache runs no model"),
        ("host", {"resources": GPU}, "num_gpus must be 0: the session host runs on the CPU"),
        ("stt", {"compute_type": "float16"}, "compute_type float16 needs a GPU: set resources.num_gpus, or int8"),
        ("stt", {"compute_type": "int8_float16"}, "compute_type int8_float16 needs a GPU"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(section: str, stage: dict[str, Any], says: str) -> None:
    """Each combination that would not compute where it says is refused with the setting to change."""
    with pytest.raises(ConfigError, match=says) as refused:
        parse_settings({section: stage})
    assert refused.value.field == f"args.{section}"


@pytest.mark.parametrize(
    ("compute_type", "resources", "weights"),
    [
        ("auto", {}, "int8"),
        ("auto", GPU, "float16"),
        ("int8", GPU, "int8"),
        ("int8_float16", GPU, "int8_float16"),
        ("float32", {}, "float32"),
    ],
)
def test_whisper_has_the_number_format_of_its_device(
    compute_type: str, resources: dict[str, float], weights: str
) -> None:
    """By default Whisper's weights are int8 on the CPU and float16 on a GPU; a format that is set stays."""
    stage = parse_settings({"stt": {"compute_type": compute_type, "resources": resources}}).stt
    assert stage.weights == weights


def test_no_stage_reserves_a_gpu_by_default() -> None:
    """By default no stage reserves a GPU, so the defaults run on a machine without one."""
    settings = Settings()
    stages = (settings.host, settings.vad, settings.turn_detector, settings.stt, settings.llm, settings.tts)
    assert not any(stage.resources.num_gpus for stage in stages)
