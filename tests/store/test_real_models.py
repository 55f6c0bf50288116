"""Tests that the built-in manifest matches the real models, which `rejoinder models pull` must have fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.manifest import InstalledSource, load_manifest
from rejoinder.store.model_store import ModelStatus, ModelStore, open_store
from rejoinder.store.sources import SourceFetcher
from rejoinder.store.verification import verify
from tests.store.fakes import NoNetwork, Recorder, ignore

pytestmark = pytest.mark.models


@pytest.fixture
def filled() -> ModelStore:
    return open_store(ModelStoreSettings())


def test_every_file_verifies(filled: ModelStore) -> None:
    """Every file of every model, and of every converted form, has the hash that was recorded for it."""
    assert {name: str(error) for name, error in filled.verify().items() if error} == {}


@pytest.mark.parametrize("name", sorted(load_manifest().models))
def test_every_model_has_its_path(filled: ModelStore, name: str) -> None:
    """The folder of each model contains each file that the manifest lists, with the size that it states."""
    folder = filled.path(name)
    sizes = {file: (folder / file).stat().st_size for file in filled.manifest.models[name].files}
    assert sizes == {file: entry.size_bytes for file, entry in filled.manifest.models[name].files.items()}
    assert filled.status(name) is ModelStatus.READY


def test_a_pull_of_a_filled_store_is_offline(filled: ModelStore) -> None:
    """If the store is complete, a pull of all models reads no source."""
    recorder = Recorder()
    ModelStore(filled.directory, filled.manifest, NoNetwork()).pull(progress=recorder)
    assert recorder.outcomes == dict.fromkeys(filled.manifest.models, "already complete")


def test_silero_is_in_the_installed_package(tmp_path: Path) -> None:
    """The installed package silero-vad contains the file that the manifest states."""
    silero = load_manifest().models["silero-vad"]
    source = silero.sources[0]
    assert isinstance(source, InstalledSource)
    SourceFetcher().fetch(source, silero.files, tmp_path, ignore)
    verify(tmp_path, silero.files, "silero-vad", ignore)
