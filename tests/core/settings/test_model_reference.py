"""Tests of model references: names, absolute paths, files and repositories on a model hub, and refused texts."""

from __future__ import annotations

from typing import Any

import faster_whisper.utils
import pytest

from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.model_reference import (
    WHISPER_REPOSITORIES,
    ModelReference,
    ReferenceKind,
    parse_model_reference,
)
from rejoinder.core.settings.settings import LlmSettings, parse_settings


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("whisper-base", ModelReference(ReferenceKind.NAME, "whisper-base")),
        ("/models/a b.gguf", ModelReference(ReferenceKind.PATH, "/models/a b.gguf")),
        ("~/models", ModelReference(ReferenceKind.PATH, "~/models")),
        (
            "Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf",
            ModelReference(
                ReferenceKind.HUB,
                "Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf",
                "Qwen/Qwen3-0.6B-GGUF",
                path="Qwen3-0.6B-Q8_0.gguf",
            ),
        ),
        (
            "o/r@v1.0.0/a/b.onnx",
            ModelReference(ReferenceKind.HUB, "o/r@v1.0.0/a/b.onnx", "o/r", revision="v1.0.0", path="a/b.onnx"),
        ),
        ("o/r", ModelReference(ReferenceKind.HUB, "o/r", "o/r")),
    ],
)
def test_a_reference_is_a_name_a_path_or_a_file_on_a_hub(text: str, reference: ModelReference) -> None:
    """Each kind of reference is recognized by its form alone, without a look at the disk."""
    assert parse_model_reference(text) == reference


@pytest.mark.parametrize(("name", "repository"), WHISPER_REPOSITORIES.items())
def test_a_large_whisper_model_has_a_name(name: str, repository: str) -> None:
    """faster-whisper's names of large models are repositories on the hub: the same ones as in its own table."""
    assert parse_model_reference(name) == ModelReference(ReferenceKind.HUB, name, repository)
    assert faster_whisper.utils._MODELS[name] == repository
    assert parse_settings({"stt": {"model": name}}).stt.model == name


@pytest.mark.parametrize("stage", ["llm", "tts"])
def test_a_whisper_name_is_only_for_recognition(stage: str) -> None:
    """A name of a Whisper model is refused as language model or voice."""
    with pytest.raises(ConfigError, match="'turbo' on a model hub is not a"):
        parse_settings({stage: {"model": "turbo"}})


@pytest.mark.parametrize("text", ["", "./model.gguf", "../model.gguf", "o/../../etc/passwd.gguf", "o/.r/x.gguf", "a b"])
def test_another_text_is_refused_with_what_to_write(text: str) -> None:
    """Relative paths, hub paths with dots, and names with spaces are refused; the message says what to write."""
    with pytest.raises(ValueError, match="absolute path"):
        parse_model_reference(text)


@pytest.mark.parametrize(
    ("args", "field", "fix"),
    [
        ({"llm": {"model": "./m.gguf"}}, "args.llm.model", "write the absolute path"),
        ({"llm": {"model": "o/r"}}, "args.llm.model", "owner/repo/file.gguf"),
        ({"stt": {"model": "o/r/voice.onnx"}}, "args.stt.model", "owner/repo"),
        ({"tts": {"model": "o/r/file.gguf"}}, "args.tts.model", "owner/repo/folder/voice.onnx"),
        ({"llm_backup": {"model": "a b"}}, "args.llm_backup.model", "rejoinder models list"),
    ],
)
def test_a_wrong_reference_names_the_setting_and_the_fix(args: dict[str, Any], field: str, fix: str) -> None:
    """A model reference that its stage cannot load is refused with the name of the setting and what to write."""
    with pytest.raises(ConfigError, match=fix) as caught:
        parse_settings(args)
    assert caught.value.field == field


def test_other_engines_keep_their_own_names() -> None:
    """The engines `openai_api` and `vllm` get the text of `llm.model` unchanged, whatever it is."""
    server = {"engine": "openai_api", "base_url": "http://127.0.0.1:1/v1", "model": "./x y"}
    assert parse_settings({"llm": server}).llm.model == "./x y"
    assert parse_settings({"llm": {"engine": "vllm", "model": "Qwen/Qwen3-8B"}}).llm.model == "Qwen/Qwen3-8B"


def test_only_the_model_that_repeats_itself_is_blocked_from_it() -> None:
    """By default, repeated groups of four tokens are blocked for SmolLM2 only, which tends to loop.

    Other models must be able to read back what the caller said. The setting `no_repeat_ngram` overrides the default.
    """
    assert LlmSettings().blocked_ngram == 0
    assert LlmSettings(model="smollm2-135m-instruct").blocked_ngram == 4
    assert LlmSettings(no_repeat_ngram=3).blocked_ngram == 3
    assert LlmSettings(model="smollm2-135m-instruct", no_repeat_ngram=0).blocked_ngram == 0
