"""Tests of verifying files by hash, and of the stamp, which records verified files to avoid hashing again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.errors import ModelError
from rejoinder.store.verification import STAMP_FILE, is_stamped, sha256_of, verify, write_stamps
from tests.store.fakes import CONTENT, facts, file_of, ignore, sha256

FILES = {"a.bin": file_of(CONTENT)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    return tmp_path


def test_right_files_verify_and_are_stamped(folder: Path) -> None:
    """A file that was hashed and stamped is accepted by its size and modification time alone."""
    assert not is_stamped(folder, FILES)
    verify(folder, FILES, "m", ignore)
    write_stamps(folder, FILES)
    assert is_stamped(folder, FILES)


def test_a_changed_time_requires_a_full_hash(folder: Path) -> None:
    """A file whose modification time changed must be hashed again, even if its size is the one in its stamp."""
    write_stamps(folder, FILES)
    os.utime(folder / "a.bin", ns=(0, 0))
    assert not is_stamped(folder, FILES)


def test_a_stamp_of_other_content_does_not_count(folder: Path) -> None:
    """A file is not accepted by its stamp if the manifest states another hash for it than the stamp."""
    write_stamps(folder, FILES)
    assert not is_stamped(folder, {"a.bin": file_of(CONTENT[::-1])})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a.bin": 3}'])
def test_a_damaged_stamp_is_ignored(folder: Path, text: str) -> None:
    """If the stamp file cannot be read, files are hashed again, and no error is raised."""
    (folder / STAMP_FILE).write_text(text)
    assert not is_stamped(folder, FILES)


def test_wrong_content_names_file_expected_and_found(folder: Path) -> None:
    """If one byte of a file changed, `verify` raises an error with the file, the expected hash and the found hash."""
    damaged = b"W" + CONTENT[1:]
    (folder / "a.bin").write_bytes(damaged)
    with pytest.raises(ModelError, match="wrong content") as caught:
        verify(folder, FILES, "m", ignore)
    assert facts(caught.value) == ("m/a.bin", f"SHA-256 {sha256(CONTENT)}", f"SHA-256 {sha256(damaged)}")


def test_a_short_file_names_both_sizes(folder: Path) -> None:
    """If a file has the wrong size, `verify` raises an error with the expected and the found size."""
    (folder / "a.bin").write_bytes(CONTENT[:10])
    with pytest.raises(ModelError, match="wrong size") as caught:
        verify(folder, FILES, "m", ignore)
    assert facts(caught.value) == ("m/a.bin", "8000 bytes", "10 bytes")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """If a file is missing, `verify` raises an error that names it."""
    with pytest.raises(ModelError, match="is missing") as caught:
        verify(tmp_path, FILES, "m", ignore)
    assert caught.value.file == "m/a.bin"


@given(content=st.binary(max_size=300))
def test_the_hash_is_sha256(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """`sha256_of`, which reads a file in chunks, returns the SHA-256 of the whole content."""
    path = tmp_path_factory.mktemp("hash") / "f"
    path.write_bytes(content)
    assert sha256_of(path, ignore) == sha256(content)
