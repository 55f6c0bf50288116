"""Tests of `scripts/device-check`: real stages on the CPU, and what it says where it cannot measure."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.device_check import NO_GPU, check, gpu_memory_mb, main, stage_args
from deployments.engines.device import visible_gpus
from rejoinder.core.settings.settings import parse_settings
from rejoinder.store.model_store import ModelStore

SCRIPT = Path(__file__).parents[2] / "scripts" / "device-check"


@pytest.mark.models
def test_stages_are_measured_on_the_cpu(store: ModelStore, tmp_path: Path) -> None:
    """The script opens real stages on the CPU and prints and writes their figures."""
    file = tmp_path / "figures.json"
    command = [str(SCRIPT), "--device", "cpu", "--stages", "vad,turn_detector,answer_cache", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = {stage["stage"]: stage for stage in json.loads(file.read_text())["stages"]}
    assert figures.keys() == {"vad", "turn_detector", "answer_cache"}
    for stage in figures.values():
        assert stage["start_s"] > 0
        assert stage["first_ms"] > 0
        assert stage["gpu_memory_mb"] == 0
        assert stage["engine"] in done.stdout
    assert figures["vad"]["pace"] > 1  # faster than real time


@pytest.mark.skipif(bool(visible_gpus()), reason="needs a machine without a GPU")
def test_without_a_gpu_it_ends_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine without a GPU, `--device cuda` measures nothing and says so in one line, with exit status 2."""
    assert main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err == NO_GPU + "\n"


@pytest.mark.parametrize("stage", ["vad", "turn_detector", "stt", "llm", "tts", "answer_cache"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_each_stage_is_put_on_the_device(stage: str, device: str) -> None:
    """The settings of a measured stage are valid and put it on the chosen device, whatever the configuration says."""
    base = {"stt": {"resources": {"num_gpus": 1}, "compute_type": "float16"}}
    settings = parse_settings(stage_args(base, stage, device, 0.5))
    made = getattr(settings, stage)
    assert (made.on_gpu, made.device) == (device == "cuda", device)
    assert made.resources.num_gpus == (0.5 if device == "cuda" else 0)


def test_a_stage_that_cannot_start_is_named() -> None:
    """A stage whose model is missing has its error instead of figures."""
    args: dict[str, Any] = {"turn_detector": {"model": "no-such-model"}}
    (message,) = check(args, ["turn_detector"], "cpu", 1)
    assert isinstance(message, str)
    assert message.startswith("turn_detector: ")
    assert "no-such-model" in message


def test_an_engine_without_a_device_is_left_out() -> None:
    """A stage whose engine does not read `device` is not measured, and the message says why."""
    (message,) = check({"tts": {"engine": "emulated"}}, ["tts"], "cpu", 1)
    assert message == "tts: left out, because engine emulated does not read the setting device."


def test_the_gpus_memory_is_that_of_its_first_visible_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi is asked for the first GPU of CUDA_VISIBLE_DEVICES; its MiB become MB."""
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$2" = 3 ] && echo 1000 || echo 5\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert gpu_memory_mb() == pytest.approx(1048.576)
