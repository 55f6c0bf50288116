"""Sources are tried in order until one provides the right bytes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import HubSource, InstalledSource, LocalSource, Source
from rejoinder.store.sources import SourceFetcher, acquire
from tests.store.fakes import CONTENT, ignore, model

REVISION = "a" * 40


class FakeHub(BaseHTTPRequestHandler):
    """HTTP handler like the hub's resolve endpoint, for one file of one revision."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        if self._answer():
            self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def _answer(self) -> bool:
        found = self.path == "/owner/repo/resolve/v1/folder/a.bin"
        self.send_response(200 if found else 404)
        if found:
            self.send_header("Content-Length", str(len(CONTENT)))
            self.send_header("ETag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
        else:
            self.send_header("Content-Length", "0")
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        return found


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
    """A source without the file and one with wrong content are skipped."""
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
    """The error lists every source that was tried, with its own reason."""
    package = InstalledSource(kind="installed", package="no-such-package-here", files={"a.bin": "x/a.bin"})
    with pytest.raises(ModelError, match="no source provides the right files") as caught:
        fetch(tmp_path / "staging", [local(tmp_path / "none"), package])
    text = str(caught.value)
    assert f"(1) folder {tmp_path / 'none'}: {tmp_path / 'none' / 'a.bin'}: is missing." in text
    assert "(2) installed package no-such-package-here: no-such-package-here: is not installed." in text


def test_a_single_source_raises_its_own_error(tmp_path: Path) -> None:
    """With one source its own error is raised, with all fields."""
    with pytest.raises(ModelError) as caught:
        fetch(tmp_path / "staging", [local(tmp_path / "none")])
    assert caught.value.file == str(tmp_path / "none" / "a.bin")


def test_installed_files_are_found_without_an_import(tmp_path: Path) -> None:
    """A file inside an installed package is found through the package's metadata and copied."""
    source = InstalledSource(
        kind="installed", package="silero-vad", files={"v.onnx": "silero_vad/data/silero_vad.onnx"}
    )
    SourceFetcher().fetch(source, model({"v.onnx": b""}), tmp_path, ignore)
    assert (tmp_path / "v.onnx").stat().st_size == 2_327_524


def test_hub_files_are_fetched_at_their_revision(tmp_path: Path, hub: str) -> None:
    """The file is downloaded at its revision and gets its name in the store."""
    source = HubSource(kind="hub", repository="owner/repo", revision="v1", files={"a.bin": "folder/a.bin"})
    folder, _ = fetch(tmp_path / "staging", [source], SourceFetcher(hub_endpoint=hub))
    assert (folder / "a.bin").read_bytes() == CONTENT


def test_a_file_missing_on_the_hub_is_one_clear_error(tmp_path: Path, hub: str) -> None:
    """A 404 from the hub becomes a ModelError with the path and a remedy."""
    source = HubSource(kind="hub", repository="owner/repo", revision="v1", files={"a.bin": "folder/other.bin"})
    with pytest.raises(ModelError, match="cannot be downloaded") as caught:
        fetch(tmp_path / "staging", [source], SourceFetcher(hub_endpoint=hub))
    assert caught.value.file == "folder/other.bin"
    assert "404" in caught.value.found
    assert caught.value.remedy
