"""Tests of the model store: pulls are complete or without effect, repair damage, and avoid the network if possible.

A stamp is a file in a model's folder that records which files were verified.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rejoinder.core.errors import ModelError
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.model_store import ModelStatus, open_store
from rejoinder.store.sources import SourceFetcher
from rejoinder.store.verification import STAMP_FILE
from tests.store.fakes import CONTENT, GivesFiles, NoNetwork, Recorder, all_files, facts, model, sha256, store

FILES = {"a.bin": CONTENT, "b.json": b"{}"}
COMPLETE = ["m/.verified.json", "m/a.bin", "m/b.json"]


def test_a_pulled_model_is_ready_under_its_path(tmp_path: Path) -> None:
    """After a pull the model's folder contains its files and the stamp, and nothing else, and its status is READY."""
    recorder = Recorder()
    pulled = store(tmp_path, {"m": model(FILES)}, GivesFiles(FILES))
    pulled.pull(["m"], recorder)
    assert pulled.path("m") == tmp_path / "m"
    assert {name: (tmp_path / "m" / name).read_bytes() for name in FILES} == FILES
    assert pulled.status("m") is ModelStatus.READY
    assert recorder.outcomes == {"m": "fetched from folder /nowhere"}
    assert all_files(tmp_path) == COMPLETE


def test_a_model_that_is_absent_names_the_command(tmp_path: Path) -> None:
    """`path` of a model that is not in the store raises an error with the command to fetch it, and fetches nothing."""
    empty = store(tmp_path, {"m": model(FILES)}, NoNetwork())
    with pytest.raises(ModelError, match=f"Run `rejoinder models pull m --directory {tmp_path}`"):
        empty.path("m")
    assert empty.status("m") is ModelStatus.ABSENT
    assert all_files(tmp_path) == []


def test_an_unknown_name_stops_a_pull_before_it_starts(tmp_path: Path) -> None:
    """If a pull of several models contains an unknown name, the error lists the known ones and none is fetched."""
    pulled = store(tmp_path, {"m": model(FILES)}, GivesFiles(FILES))
    with pytest.raises(ModelError, match=r"expected: m\. found: n\."):
        pulled.pull(["m", "n"])
    assert all_files(tmp_path) == []


def test_a_complete_store_needs_no_source(tmp_path: Path) -> None:
    """A pull reads no source if all files are in the store and verified."""
    store(tmp_path, {"m": model(FILES)}, GivesFiles(FILES)).pull()
    recorder = Recorder()
    store(tmp_path, {"m": model(FILES)}, NoNetwork()).pull(progress=recorder)
    assert recorder.outcomes == {"m": "already complete"}


def test_files_without_a_stamp_are_hashed_not_fetched(tmp_path: Path) -> None:
    """A pull accepts files that were copied into the store without a stamp: it hashes them and fetches nothing."""
    store(tmp_path, {"m": model(FILES)}, GivesFiles(FILES)).pull()
    (tmp_path / "m" / STAMP_FILE).unlink()
    copied = store(tmp_path, {"m": model(FILES)}, NoNetwork())
    assert copied.status("m") is ModelStatus.UNVERIFIED
    copied.pull()
    assert copied.status("m") is ModelStatus.READY


def test_damage_is_found_by_path_and_repaired_by_pull(tmp_path: Path) -> None:
    """If a file was changed after its pull, `path` raises an error with both hashes, and the next pull replaces it."""
    kept = store(tmp_path, {"m": model(FILES)}, GivesFiles(FILES))
    kept.pull()
    damaged = CONTENT[::-1]
    (tmp_path / "m" / "a.bin").write_bytes(damaged)
    with pytest.raises(ModelError, match="Run `rejoinder models pull m") as caught:
        kept.path("m")
    assert facts(caught.value) == ("m/a.bin", f"SHA-256 {sha256(CONTENT)}", f"SHA-256 {sha256(damaged)}")
    kept.pull()
    assert (kept.path("m") / "a.bin").read_bytes() == CONTENT


def test_wrong_bytes_from_a_source_are_refused(tmp_path: Path) -> None:
    """A pull from a source with wrong content raises an error and leaves the store unchanged."""
    pulled = store(tmp_path, {"m": model(FILES)}, GivesFiles({**FILES, "a.bin": b"wrong"}))
    with pytest.raises(ModelError, match="wrong size"):
        pulled.pull()
    assert all_files(tmp_path) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ModelError("stopped midway.")])
def test_an_interrupted_pull_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    """If a pull is interrupted or fails, it leaves no file in the store, not even in the staging folder."""
    with pytest.raises(type(failure)):
        store(tmp_path, {"m": model(FILES)}, GivesFiles({"a.bin": CONTENT[:10]}, failure)).pull()
    assert all_files(tmp_path) == []


def test_a_killed_pull_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    """If a pull is killed, only a file in the staging folder is left. The next pull removes it and succeeds."""
    script = """
import sys, pathlib
from tests.store.fakes import GivesFiles, model, store
class Stuck(GivesFiles):
    def fetch(self, source, model, into, report):
        super().fetch(source, model, into, report)
        print("midway", flush=True)
        sys.stdin.read()
files = {"a.bin": b"weights " * 1000, "b.json": b"{}"}
store(pathlib.Path(sys.argv[1]), {"m": model(files)}, Stuck({"a.bin": b"part"})).pull()
"""
    root = Path(__file__).parents[2]
    command = (sys.executable, "-c", script, str(tmp_path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"midway\n"
        process.kill()
    remains = all_files(tmp_path)
    assert len(remains) == 1
    assert remains[0].startswith(".staging/m/")
    store(tmp_path, {"m": model(FILES)}, GivesFiles(FILES)).pull()
    assert all_files(tmp_path) == COMPLETE


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """If the disk becomes full, a pull raises ModelError with the free and the needed space and leaves no file."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ModelError, match=r"the disk of .* is full.*Free space") as caught:
        store(tmp_path, {"m": model(FILES)}, GivesFiles({"a.bin": b"part"}, full)).pull()
    assert caught.value.file == "m"
    assert "MB free" in caught.value.expected
    assert caught.value.found.endswith("MB")
    assert all_files(tmp_path) == []


def test_a_store_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    """If the store cannot be written, the error names its directory and the option that sets another one."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"the store cannot be written\..*--directory") as caught:
        store(tmp_path / "file" / "store", {"m": model(FILES)}, GivesFiles(FILES)).pull()
    assert caught.value.file == str(tmp_path / "file" / "store")


def test_a_folder_of_the_user_is_tried_first(tmp_path: Path) -> None:
    """A pull with a local folder (`--from DIR`) takes the files from DIR/MODEL and reads no other source."""
    (tmp_path / "given" / "m").mkdir(parents=True)
    for name, content in FILES.items():
        (tmp_path / "given" / "m" / name).write_bytes(content)
    recorder = Recorder()
    pulled = store(tmp_path / "store", {"m": model(FILES)}, SourceFetcher())
    pulled.pull(progress=recorder, local=tmp_path / "given")
    assert recorder.outcomes == {"m": f"fetched from folder {tmp_path / 'given' / 'm'}"}


def test_verify_reports_each_model(tmp_path: Path) -> None:
    """`verify` hashes the files of every model, so it finds a change that kept size and time.

    It returns the error of each model, None if it has none.
    """
    both = store(tmp_path, {"m": model(FILES), "n": model(FILES)}, GivesFiles(FILES))
    both.pull()
    stamp = (tmp_path / "m" / "a.bin").stat()
    (tmp_path / "m" / "a.bin").write_bytes(CONTENT[::-1])
    os.utime(tmp_path / "m" / "a.bin", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert both.status("m") is ModelStatus.READY
    results = both.verify()
    assert results["n"] is None
    assert "wrong content" in str(results["m"])


def test_the_default_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default store is rejoinder/models in XDG_CACHE_HOME or, if that is not set, in .cache in HOME.

    A directory in the settings overrides both.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert open_store(ModelStoreSettings()).directory == tmp_path / ".cache" / "rejoinder" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert open_store(ModelStoreSettings()).directory == tmp_path / "xdg" / "rejoinder" / "models"
    assert open_store(ModelStoreSettings(directory="~/weights")).directory == tmp_path / "weights"
