"""Tests that ray_config.yaml is valid for Ray and for Rejoinder, and contains the true defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from cluster.launch import read_config
from deployments.app import build
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.serve_file import ServeFile

FILE = Path(__file__).parents[2] / "ray_config.yaml"


def _document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return document


def test_the_file_is_valid_for_serve_deploy() -> None:
    """Ray's own schema for `serve deploy` accepts ray_config.yaml and keeps Rejoinder's settings unchanged."""
    document = _document()
    schema = ServeDeploySchema.model_validate(document)
    assert [app.name for app in schema.applications] == ["rejoinder"]
    assert schema.applications[0].args == document["applications"][0]["args"]
    assert schema.applications[0].import_path == "deployments.app:build"


def test_the_file_contains_the_defaults() -> None:
    """The settings in ray_config.yaml are those that apply without a file."""
    assert read_config(FILE).application.args == ServeFile().application.args
    assert read_config(FILE).http_options == ServeFile().http_options


def test_serve_builds_the_application_of_the_file() -> None:
    """The function `build`, which `serve deploy` imports, accepts the `args` of ray_config.yaml."""
    assert build(_document()["applications"][0]["args"]) is not None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"proxy": "EveryNode"}, "proxy"),
        ({"http_options": {"prot": 8000}}, "http_options.prot"),
        ({"applications": [{"args": {"stt": {"modell": "x"}}}]}, "applications.0.args.stt.modell"),
        ({"applications": [{"args": {"llm": {"resources": {"gpus": 1}}}}]}, "applications.0.args.llm.resources.gpus"),
        ({"applications": []}, "applications"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    """An unknown key at any level, or an empty list of applications, is refused with the path of the field."""
    file = tmp_path / "ray_config.yaml"
    file.write_text(yaml.safe_dump(_document() | change), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_config(file)
    assert refused.value.field == field


def test_build_refuses_an_invalid_file() -> None:
    """`build`, which `serve deploy` calls, refuses an unknown setting with its path, as `rejoinder serve` does."""
    with pytest.raises(ConfigError) as refused:
        build({"tts": {"chunk": 20}})
    assert refused.value.field == "args.tts.chunk"


@pytest.mark.parametrize(("text", "says"), [("{", "is not YAML"), (None, "cannot be read")])
def test_an_unreadable_file_is_a_typed_error(tmp_path: Path, text: str | None, says: str) -> None:
    """If the configuration file is missing or not YAML, reading it raises ConfigError."""
    file = tmp_path / "ray_config.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        read_config(file)
