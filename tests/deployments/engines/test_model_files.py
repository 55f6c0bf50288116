"""Tests of the check of the user's model files: complete models pass, and errors name the setting and the fix."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cluster.doctor.machine import needed_models
from deployments.engines.model_files import check_model_files
from deployments.engines.piper import PiperVoice
from deployments.engines.stt.whisper import Whisper
from rejoinder.cli.serve import serve
from rejoinder.core.errors import ConfigError, ModelError
from rejoinder.core.settings.serve_file import parse_serve_file
from rejoinder.store.model_store import ModelStore
from tests.deployments.engines.llm.test_any_gguf import write_gguf

VOICE = {"audio": {"sample_rate": 22050}, "phoneme_id_map": {}, "num_symbols": 256}


def test_whole_models_pass(tmp_path: Path) -> None:
    """A GGUF file with a chat template, a faster-whisper folder and a voice with its configuration pass."""
    check_model_files("args.llm.model", write_gguf(tmp_path / "m.gguf"))
    whisper = tmp_path / "whisper"
    whisper.mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.json"):
        (whisper / name).write_text("{}")
    check_model_files("args.stt.model", whisper)
    check_model_files("args.stt.model", whisper / "model.bin")
    (tmp_path / "v.onnx").write_bytes(b"")
    (tmp_path / "v.onnx.json").write_text(json.dumps(VOICE))
    check_model_files("args.tts.model", tmp_path / "v.onnx")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """The error for an incomplete Whisper folder or voice names the missing files and the setting."""
    with pytest.raises(ModelError, match=r"model\.bin, config\.json, tokenizer\.json") as e:
        check_model_files("args.stt.model", tmp_path)
    assert "stt.model" in e.value.remedy
    (tmp_path / "v.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"v\.onnx\.json: is not a Piper voice") as e:
        check_model_files("args.tts.model", tmp_path / "v.onnx")
    assert "tts.model" in e.value.remedy


@pytest.mark.parametrize("content", ["[]", "{", '{"audio": {}}'])
def test_another_json_is_no_voice(tmp_path: Path, content: str) -> None:
    """A voice whose JSON file is invalid, or is not a Piper configuration, is refused."""
    (tmp_path / "v.onnx").write_bytes(b"")
    (tmp_path / "v.onnx.json").write_text(content)
    with pytest.raises(ModelError, match="not a Piper voice"):
        check_model_files("args.tts.model", tmp_path)


def test_serve_refuses_a_wrong_path_before_it_starts(tmp_path: Path) -> None:
    """If `llm.model` is a path that does not exist, `rejoinder serve` raises ConfigError that names the setting."""
    config = tmp_path / "ray_config.yaml"
    config.write_text(
        f"applications: [{{args: {{models: {{directory: {tmp_path}}}, llm: {{model: {tmp_path}/no.gguf}}}}}}]"
    )
    with pytest.raises(ConfigError, match=r"args\.llm\.model: there is no file or folder"):
        serve(config)


def test_a_needed_model_has_its_setting() -> None:
    """Each model that a configuration needs is listed with the setting that names it."""
    document = parse_serve_file({"applications": [{"args": {"tts": {"model": "o/r/v.onnx"}}}]})
    assert needed_models(document)["o/r/v.onnx"] == "args.tts.model"
    assert needed_models(document)["whisper-base"] == "args.stt.model"


@pytest.mark.models
def test_a_folder_and_a_voice_anywhere_are_loaded(store: ModelStore, tmp_path: Path) -> None:
    """A faster-whisper folder and a Piper voice outside the store are loaded from their own paths."""
    shutil.copytree(store.path("whisper-base"), tmp_path / "whisper-copy")
    assert Whisper(tmp_path / "whisper-copy").name.startswith("whisper-copy")
    for file in store.path("piper-en-us-joe-medium").glob("en_US*"):
        shutil.copy(file, tmp_path / file.name.replace("joe", "jane"))
    assert "jane" in PiperVoice(tmp_path / "en_US-jane-medium.onnx").name
