"""Tests of the sources of a model's files: they are tried in order until one provides the right content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import HubSource, InstalledSource, LocalSource, Source
from rejoinder.store.sources import SourceFetcher, acquire
from tests.store.fake_hub import serve_hub
from tests.store.fakes import CONTENT, ignore, model


@pytest.fixture
def hub() -> Iterator[str]:
    with serve_hub({"owner/repo/v1/folder/a.bin": CONTENT}) as address:
        yield address


def local(folder: Path) -> LocalSource:
    return LocalSource(kind="local", directory=str(folder))


def fetch(staging: Path, sources: list[Source], fetcher: SourceFetcher | None = None) -> tuple[Path, Source]:
    staging.mkdir()
    return acquire(
        "m",
        model=model({"a.bin": CONTENT}),
        sources=sources,
        staging=staging,
        fetcher=fetcher or SourceFetcher(),
        report=ignore,
    )


def test_the_first_source_with_the_right_bytes_is_used(tmp_path: Path) -> None:
    """A source without the file and a source with wrong content are skipped, and the next one is used."""
    wrong, right = tmp_path / "wrong", tmp_path / "right"
    for folder, content in ((wrong, CONTENT[::-1]), (right, CONTENT)):
        folder.mkdir()
        (folder / "a.bin").write_bytes(content)
    sources: list[Source] = [local(tmp_path / "none"), local(wrong), local(right)]
    folder, source = fetch(tmp_path / "staging", sources)
    assert source is sources[2]
    assert (folder / "a.bin").read_bytes() == CONTENT
    assert (right / "a.bin").read_bytes() == CONTENT


def test_when_all_fail_the_error_lists_every_reason(tmp_path: Path) -> None:
    """If all sources fail, the error lists each of them with the reason."""
    package = InstalledSource(kind="installed", package="no-such-package-here", files={"a.bin": "x/a.bin"})
    with pytest.raises(ModelError, match="no source provides the right files") as caught:
        fetch(tmp_path / "staging", [local(tmp_path / "none"), package])
    text = str(caught.value)
    assert f"(1) folder {tmp_path / 'none'}: {tmp_path / 'none' / 'a.bin'}: is missing." in text
    assert "(2) installed package no-such-package-here: no-such-package-here: is not installed." in text


def test_a_single_source_raises_its_own_error(tmp_path: Path) -> None:
    """If a model has only one source, the error of that source is raised unchanged."""
    with pytest.raises(ModelError) as caught:
        fetch(tmp_path / "staging", [local(tmp_path / "none")])
    assert caught.value.file == str(tmp_path / "none" / "a.bin")


def test_installed_files_are_found_without_an_import(tmp_path: Path) -> None:
    """A file of an installed package is found by the package's metadata and copied, without importing the package."""
    source = InstalledSource(
        kind="installed", package="silero-vad", files={"v.onnx": "silero_vad/data/silero_vad.onnx"}
    )
    SourceFetcher().fetch(source, ["v.onnx"], tmp_path, ignore)
    assert (tmp_path / "v.onnx").stat().st_size == 2_327_524


def test_hub_files_are_fetched_at_their_revision(tmp_path: Path, hub: str) -> None:
    """A file is downloaded from the hub at the manifest's revision and gets the name that it has in the store."""
    source = HubSource(kind="hub", repository="owner/repo", revision="v1", files={"a.bin": "folder/a.bin"})
    folder, _ = fetch(tmp_path / "staging", [source], SourceFetcher(hub_endpoint=hub))
    assert (folder / "a.bin").read_bytes() == CONTENT


def test_a_file_missing_on_the_hub_is_one_clear_error(tmp_path: Path, hub: str) -> None:
    """If the hub answers 404, a ModelError names the path and what to do."""
    source = HubSource(kind="hub", repository="owner/repo", revision="v1", files={"a.bin": "folder/other.bin"})
    with pytest.raises(ModelError, match="cannot be downloaded") as caught:
        fetch(tmp_path / "staging", [source], SourceFetcher(hub_endpoint=hub))
    assert caught.value.file == "folder/other.bin"
    assert "404" in caught.value.found
    assert caught.value.remedy
