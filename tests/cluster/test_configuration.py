"""Tests that ray_config.yaml is valid for Ray and for Rejoinder, and contains the true defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from cluster.config_file import read_config
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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "is not YAML. Line 1, column 2"),
        (
            b"http_options: {port: 1}\nhttp_options: {port: 2}\n",
            "the key 'http_options' is there twice",
        ),
        (b"http_options: {port: 1, port: 2}", "the key 'port' is there twice"),
        (b"a: *x", "undefined alias"),
        (b"a: \x00", "is not YAML"),
        (b"a: 2026-13-01", "is not YAML"),
        (b"[" * 20_000, "is not YAML"),
        (FILE.read_text(encoding="utf-8").encode("utf-16"), "is not UTF-8"),
        ("# caf\u00e9".encode("latin-1"), "is not UTF-8"),
        (bytes(range(256)), "is not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_an_unreadable_file_is_a_typed_error(tmp_path: Path, content: bytes | None, says: str) -> None:
    """A file that is missing, binary, in another encoding, not YAML, or has a key twice raises ConfigError."""
    file = tmp_path / "ray_config.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_config(file)
    assert says in str(refused.value)
    assert refused.value.field == str(file)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    """A folder instead of the file raises ConfigError."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path)


def test_a_byte_order_mark_and_merged_keys_are_accepted(tmp_path: Path) -> None:
    """Windows editors write a byte order mark; a merged mapping (`<<`) may be overridden."""
    file = tmp_path / "ray_config.yaml"
    text = "http_options: {<<: &defaults {port: 9000, host: 0.0.0.0}, port: 9001}\n"
    file.write_text(text, encoding="utf-8-sig")
    assert read_config(file).http_options.port == 9001
    assert read_config(file).http_options.host == "0.0.0.0"
