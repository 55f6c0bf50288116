"""A file is used only if its bytes are the right ones; a stamp spares the hash while nothing has changed."""

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
    """After a full check and a stamp, a look at size and time is enough."""
    assert not is_stamped(folder, FILES)
    verify(folder, FILES, "m", ignore)
    write_stamps(folder, FILES)
    assert is_stamped(folder, FILES)


def test_a_changed_time_brings_the_full_hash_back(folder: Path) -> None:
    """A file touched after its stamp is no longer taken on trust, even if its size is the same."""
    write_stamps(folder, FILES)
    os.utime(folder / "a.bin", ns=(0, 0))
    assert not is_stamped(folder, FILES)


def test_a_stamp_of_other_content_does_not_count(folder: Path) -> None:
    """When the manifest expects another hash, an old stamp of the old file is worth nothing."""
    write_stamps(folder, FILES)
    assert not is_stamped(folder, {"a.bin": file_of(CONTENT[::-1])})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a.bin": 3}'])
def test_a_damaged_stamp_is_no_stamp(folder: Path, text: str) -> None:
    """An unreadable sidecar means a full hash, never a crash and never trust."""
    (folder / STAMP_FILE).write_text(text)
    assert not is_stamped(folder, FILES)


def test_wrong_content_names_file_expected_and_found(folder: Path) -> None:
    """One flipped byte of the right length is found by its hash, and the error carries both hashes."""
    damaged = b"W" + CONTENT[1:]
    (folder / "a.bin").write_bytes(damaged)
    with pytest.raises(ModelError, match="wrong content") as caught:
        verify(folder, FILES, "m", ignore)
    assert facts(caught.value) == ("m/a.bin", f"SHA-256 {sha256(CONTENT)}", f"SHA-256 {sha256(damaged)}")


def test_a_short_file_names_both_sizes(folder: Path) -> None:
    """A truncated file is told from a damaged one."""
    (folder / "a.bin").write_bytes(CONTENT[:10])
    with pytest.raises(ModelError, match="wrong size") as caught:
        verify(folder, FILES, "m", ignore)
    assert facts(caught.value) == ("m/a.bin", "8000 bytes", "10 bytes")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ModelError, match="is missing") as caught:
        verify(tmp_path, FILES, "m", ignore)
    assert caught.value.file == "m/a.bin"


@given(content=st.binary(max_size=300))
def test_the_hash_is_sha256(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """The chunked hash equals hashlib's over the whole content."""
    path = tmp_path_factory.mktemp("hash") / "f"
    path.write_bytes(content)
    assert sha256_of(path, ignore) == sha256(content)
