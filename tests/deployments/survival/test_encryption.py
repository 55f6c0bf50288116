"""Tests of the encryption of snapshots at rest."""

from __future__ import annotations

import pytest

from deployments.serving.access import carrying_keys
from deployments.survival.encryption import SnapshotCipher
from rejoinder.core.settings.settings import Settings

DATA = b"What is the capital of France?"


def test_a_snapshot_is_readable_only_with_its_key_and_session() -> None:
    """The encrypted text has no word of the snapshot, and two encryptions of one text differ.

    Another key, another session and a changed byte are refused.
    """
    cipher = SnapshotCipher("secret")
    sealed = cipher.seal(DATA, "a")
    assert cipher.open(sealed, "a") == DATA
    assert b"France" not in sealed
    assert cipher.seal(DATA, "a") != sealed
    for wrong, data, session in (
        (SnapshotCipher("other"), sealed, "a"),
        (cipher, sealed, "b"),
        (cipher, sealed[:-1] + bytes([sealed[-1] ^ 1]), "a"),
        (cipher, b"", "a"),
    ):
        with pytest.raises(ValueError, match=r"another key|Nonce"):
            wrong.open(data, session)


def test_the_launcher_carries_the_key_to_the_hosts() -> None:
    """The hosts on other nodes get the key from the launcher's environment. It is not part of the settings' text."""
    carried = carrying_keys(Settings(), {"REJOINDER_JOURNAL_KEY": "hush"})
    assert carried.journal.key == "hush"
    assert "hush" not in repr(carried)
