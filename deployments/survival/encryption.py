"""Encryption of snapshots with AES-256-GCM, before they leave the host. The journals never have the key."""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES = 12
"""Bytes of the random nonce before the encrypted data."""


class SnapshotCipher:
    """Cipher with a key that is derived from a secret (`actors.survival.session_keeper.Cipher`).

    The session is authenticated too, so a snapshot cannot be put in the place of another session's.
    """

    def __init__(self, secret: str) -> None:
        key = hmac.new(secret.encode(), b"rejoinder session journal", hashlib.sha256).digest()
        self._aead = AESGCM(key)

    def seal(self, data: bytes, session: str) -> bytes:
        """Return the data encrypted for a session, which `open` decrypts."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, data, session.encode())

    def open(self, data: bytes, session: str) -> bytes:
        """Return the data that `seal` has encrypted for this session.

        Raises:
            ValueError: The data was changed, or encrypted with another secret or for another session.
        """
        try:
            return self._aead.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], session.encode())
        except InvalidTag:
            raise ValueError("the snapshot was encrypted with another key, or changed") from None
