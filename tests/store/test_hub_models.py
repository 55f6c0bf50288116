"""Tests of models that a reference names on a model hub: their files, their verification and their errors."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import HubSource, Manifest
from rejoinder.store.model_store import ModelStatus, ModelStore
from rejoinder.store.sources import SourceFetcher
from tests.store.fake_hub import serve_hub
from tests.store.fakes import CONTENT, NoNetwork, Recorder

GGUF = "o/r/deep/m-Q4_K_M.gguf"
VOICE = "o/voices@v1/en/joe.onnx"
WHISPER = "o/whisper"
SPLIT = "o/big/m-00001-of-00002.gguf"
FILES = {
    "o/r/main/deep/m-Q4_K_M.gguf": CONTENT,
    "o/voices/v1/en/joe.onnx": b"network",
    "o/voices/v1/en/joe.onnx.json": b"{}",
    "o/whisper/main/model.bin": b"weights",
    "o/whisper/main/config.json": b"{}",
    "o/whisper/main/tokenizer.json": b"{}",
    "o/whisper/main/vocabulary.json": b"[]",
    "o/big/main/m-00001-of-00002.gguf": b"one",
    "o/big/main/m-00002-of-00002.gguf": b"two",
}


@pytest.fixture
def hub() -> Iterator[str]:
    with serve_hub(FILES) as address:
        yield address


@pytest.fixture
def store(tmp_path: Path, hub: str) -> ModelStore:
    return ModelStore(tmp_path / "store", Manifest(models={}), SourceFetcher(hub_endpoint=hub))


@pytest.mark.parametrize(
    ("reference", "names"),
    [
        (GGUF, ["m-Q4_K_M.gguf"]),
        (VOICE, ["joe.onnx", "joe.onnx.json"]),
        (WHISPER, ["config.json", "model.bin", "tokenizer.json", "vocabulary.json"]),
        (SPLIT, ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]),
    ],
)
def test_a_pull_fetches_every_file_of_the_model(store: ModelStore, reference: str, names: list[str]) -> None:
    """A pull fetches all files that an engine needs: a voice's configuration, the parts of a split file, a folder."""
    assert store.status(reference) is ModelStatus.ABSENT
    store.pull([reference])
    assert store.status(reference) is ModelStatus.READY
    assert sorted(path.name for path in store.path(reference).iterdir() if path.name[0] != ".") == names


def test_a_pulled_model_needs_no_network(store: ModelStore) -> None:
    """A second pull, and every use, read no source."""
    store.pull([GGUF])
    offline, recorder = ModelStore(store.directory, store.manifest, NoNetwork()), Recorder()
    offline.pull([GGUF], recorder)
    assert recorder.outcomes == {GGUF: "already complete"}
    assert next(offline.path(GGUF).glob("*.gguf")).read_bytes() == CONTENT


def test_a_download_reports_its_bytes(tmp_path: Path, hub: str) -> None:
    """The bytes done and in all are reported while a file is downloaded from a hub."""
    seen: list[tuple[str, int, int]] = []
    source = HubSource(kind="hub", repository="o/r", revision="main", files={"a": "deep/m-Q4_K_M.gguf"})
    SourceFetcher(hub_endpoint=hub).fetch(source, ["a"], tmp_path, lambda *report: seen.append(report))
    assert seen[-1] == ("downloading o/r/deep/m-Q4_K_M.gguf", len(CONTENT), len(CONTENT))


def test_a_damaged_file_is_noticed(store: ModelStore) -> None:
    """A file that changed since its download is refused, with the command that fetches it again."""
    store.pull([GGUF])
    file = next(store.path(GGUF).glob("*.gguf"))
    file.write_bytes(CONTENT[::-1])
    with pytest.raises(ModelError, match=f"Run `rejoinder models pull {GGUF}`"):
        store.path(GGUF)
    assert store.verify([GGUF])[GGUF] is not None
    store.pull([GGUF])
    assert store.verify([GGUF]) == {GGUF: None}


def test_an_absent_model_names_the_command(store: ModelStore) -> None:
    """A use of a model that was not pulled fetches nothing and raises an error with the command to run."""
    with pytest.raises(ModelError, match=f"Run `rejoinder models pull {GGUF}`"):
        store.path(GGUF)


def test_a_file_that_the_hub_lacks_is_named(store: ModelStore) -> None:
    """If the repository has no such file, the error names its path, and nothing is left in the store."""
    with pytest.raises(ModelError, match="Check the path") as caught:
        store.pull(["o/r/other.gguf"])
    assert caught.value.file == "other.gguf"
    assert store.status("o/r/other.gguf") is ModelStatus.ABSENT


def test_a_hub_that_cannot_be_reached_is_a_network_error(tmp_path: Path) -> None:
    """If the hub does not answer, the error says to check the network, not to look for another file."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        fetcher = SourceFetcher(hub_endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}")
        store = ModelStore(tmp_path, Manifest(models={}), fetcher)
        with pytest.raises(ModelError, match="Check the network"):
            store.pull([GGUF])


def test_a_local_folder_replaces_the_hub(tmp_path: Path) -> None:
    """With `--from DIR`, the files of DIR/REFERENCE are used, and the hub is not asked."""
    folder = tmp_path / "copies" / WHISPER
    folder.mkdir(parents=True)
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_bytes(name.encode())
    store = ModelStore(tmp_path / "store", Manifest(models={}), SourceFetcher(hub_endpoint="http://127.0.0.1:1"))
    store.pull([WHISPER], local=tmp_path / "copies")
    assert (store.path(WHISPER) / "vocabulary.txt").read_bytes() == b"vocabulary.txt"


def test_a_local_path_is_used_as_it_is(tmp_path: Path) -> None:
    """An absolute path is the model; a pull of it, and a path to nothing, are errors."""
    store = ModelStore(tmp_path / "store", Manifest(models={}), NoNetwork())
    file = tmp_path / "m.gguf"
    assert store.status(str(file)) is ModelStatus.ABSENT
    with pytest.raises(ModelError, match="no such file"):
        store.path(str(file))
    file.write_bytes(CONTENT)
    assert store.path(str(file)) == file
    assert store.status(str(file)) is ModelStatus.READY
    with pytest.raises(ModelError, match="needs no pull"):
        store.pull([str(file)])
