"""Signed texts: a client carries a JSON value that every host with the signing key can check, and that no host stores.

A text has the form `PREFIX_CONTENT.SIGNATURE`. Content and signature (HMAC-SHA-256) are in URL-safe base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SignedText:
    """A kind of signed text.

    Attributes:
        prefix: First characters of each text, such as "ek_".
        purpose: Part of what is signed, so that a text of one kind is not valid as a text of another.
    """

    prefix: str
    purpose: bytes

    def sign(self, content: list[Any], signing_key: str) -> str:
        """Return a JSON array as a signed text."""
        document = json.dumps(content, separators=(",", ":"))
        encoded = base64.urlsafe_b64encode(document.encode()).rstrip(b"=")
        return f"{self.prefix}{encoded.decode()}.{self._signature(encoded, signing_key)}"

    def read(self, text: str, signing_keys: Iterable[str]) -> list[Any] | None:
        """Return the JSON array of a text; None if it was changed, or is signed with none of the keys.

        Each key is compared in constant time.
        """
        encoded, _, signature = text.removeprefix(self.prefix).partition(".")
        if not text.startswith(self.prefix) or not text.isascii():
            return None
        if not any(hmac.compare_digest(self._signature(encoded.encode(), key), signature) for key in signing_keys):
            return None
        try:
            content: list[Any] = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        except (ValueError, binascii.Error):
            return None
        return content

    def _signature(self, encoded: bytes, signing_key: str) -> str:
        mac = hmac.new(signing_key.encode(), self.purpose + encoded, hashlib.sha256)
        return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()
