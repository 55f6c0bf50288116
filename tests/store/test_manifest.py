"""Tests of reading a manifest of models: a valid one is read, any other is refused with the wrong part named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rejoinder.core.errors import ModelError
from rejoinder.core.settings.settings import (
    AnswerCacheSettings,
    LlmSettings,
    SttSettings,
    TtsSettings,
    TurnDetectorSettings,
)
from rejoinder.store.manifest import LocalSource, WheelSource, load_manifest

SHA = "0" * 64


def document() -> dict[str, Any]:
    wheel = {"package": "p", "version": "1", "sha256": SHA}
    sources = [
        {"kind": "local", "directory": "here"},
        {"kind": "installed", "package": "p", "files": {"a.bin": "p/a.bin"}},
        {"kind": "wheel", "wheels": [wheel], "files": {"a.bin": ["p/a.bin"]}},
        {"kind": "hub", "repository": "o/r", "revision": "main", "files": {"a.bin": "a.bin"}},
    ]
    files = {"a.bin": {"size_bytes": 1, "sha256": SHA}}
    return {"models": {"m": {"role": "stt", "licence": "MIT", "files": files, "sources": sources}}}


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_built_in_manifest_lists_every_default_model() -> None:
    """The built-in manifest has exactly the models of the default configuration, silero-vad and human-clips."""
    models = load_manifest().models
    named = {TurnDetectorSettings().model, SttSettings().model, LlmSettings().model, TtsSettings().model}
    named |= {SttSettings().first_pass_model, AnswerCacheSettings().model}
    assert named | {"silero-vad", "human-clips"} == set(models)


def test_every_kind_of_source_is_read(tmp_path: Path) -> None:
    """A model may have all four kinds of source (local, installed, wheel, hub), and their order is kept."""
    sources = load_manifest(write(tmp_path, document())).models["m"].sources
    assert [source.kind for source in sources] == ["local", "installed", "wheel", "hub"]


def test_a_local_folder_is_relative_to_the_manifest(tmp_path: Path) -> None:
    """The directory of a local source is relative to the manifest's folder, not to the working directory."""
    source = load_manifest(write(tmp_path, document())).models["m"].sources[0]
    assert isinstance(source, LocalSource)
    assert source.directory == str(tmp_path / "here")


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("models", "m"),
        ("models", "m", "files", "a.bin"),
        ("models", "m", "sources", 0),
        ("models", "m", "sources", 1),
        ("models", "m", "sources", 2),
        ("models", "m", "sources", 2, "wheels", 0),
        ("models", "m", "sources", 3),
    ],
)
def test_an_unknown_key_is_refused_at_every_level(tmp_path: Path, path: tuple[str | int, ...]) -> None:
    """An unknown key at any level of a manifest raises an error that names the manifest and the key."""
    content = document()
    level: Any = content
    for part in path:
        level = level[part]
    level["surprise"] = 1
    with pytest.raises(ModelError, match=r"surprise: unknown key") as caught:
        load_manifest(write(tmp_path, content))
    assert caught.value.file == str(tmp_path / "manifest.yaml")


@pytest.mark.parametrize("name", ["../outside", ".hidden", "a/b", ""])
def test_no_name_can_leave_the_store(tmp_path: Path, name: str) -> None:
    """Names of models and files that contain a path or begin with a dot, and empty names, are refused."""
    as_model, as_file = document(), document()
    as_model["models"] = {name: as_model["models"]["m"]}
    as_file["models"]["m"]["files"] = {name: {"size_bytes": 1, "sha256": SHA}}
    for content in (as_model, as_file):
        with pytest.raises(ModelError):
            load_manifest(write(tmp_path, content))


def test_a_source_must_provide_every_file(tmp_path: Path) -> None:
    """A source that lacks one of the model's files is refused when the manifest is read."""
    content = document()
    content["models"]["m"]["files"]["b.bin"] = {"size_bytes": 1, "sha256": SHA}
    with pytest.raises(ModelError, match=r"must provide exactly the files \['a.bin', 'b.bin'\]"):
        load_manifest(write(tmp_path, content))


@pytest.mark.parametrize("text", ["models: [", "- a", "", "models: {m: {role: singer}}"])
def test_a_broken_manifest_is_one_clear_error(tmp_path: Path, text: str) -> None:
    """A manifest that is not YAML or has the wrong structure raises a ModelError that names the file."""
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        load_manifest(path)
    assert caught.value.file == str(path)
    assert caught.value.remedy


def test_an_absent_manifest_is_one_clear_error(tmp_path: Path) -> None:
    """A missing manifest raises a ModelError that names the setting to correct."""
    with pytest.raises(ModelError, match=r"models\.manifest"):
        load_manifest(tmp_path / "none.yaml")


def test_every_wheel_in_the_built_in_manifest_is_pinned() -> None:
    """The built-in manifest has eight sources that are wheels; reading it checks that each has a version and a hash.

    For `model.bin`, which is split over two wheels, it lists part 1 before part 2.
    """
    wheels = [s for m in load_manifest().models.values() for s in m.sources if isinstance(s, WheelSource)]
    assert len(wheels) == 8
    parts = next(s.files["model.bin"] for s in wheels if "model.bin" in s.files)
    assert [part[-5:] for part in parts] == ["part1", "part2"]
