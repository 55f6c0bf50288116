"""Resume tokens: who has one may go on with its conversation, on any host.

A token contains the session, its owner and its expiry, and a signature (HMAC-SHA-256). So every host that has the
signing key can check it, and no host stores it. It has the form `rt_CONTENT.SIGNATURE`, both in URL-safe base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass

PREFIX = "rt_"
MAX_CHARACTERS = 512
"""Longer texts are not looked at."""


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """What a resume token contains.

    Attributes:
        session: Key of the session (`SessionSnapshot.key`).
        owner: Digest of the API key that opened the session; "" if the host has no keys.
        expires_at: Unix time in seconds at which it expires: the end of the session's longest time.
    """

    session: str
    owner: str
    expires_at: int


def token_key(secret: str) -> str:
    """Return the signing key of resume tokens that belongs to the signing key of client secrets.

    The journals get it. They do not get the secret itself, which also signs client secrets.
    """
    return hmac.new(secret.encode(), b"rejoinder resume key", hashlib.sha256).hexdigest()


def sign_token(token: ResumeToken, signing_key: str) -> str:
    """Return the token as the text that a client sends."""
    content = json.dumps([token.session, token.owner, token.expires_at], separators=(",", ":"))
    encoded = base64.urlsafe_b64encode(content.encode()).rstrip(b"=")
    return f"{PREFIX}{encoded.decode()}.{_signature(encoded, signing_key)}"


def read_token(text: str, signing_keys: Iterable[str], now: float) -> ResumeToken | None:
    """Return the content of a token. Return None if it is expired, changed, or signed with none of the keys.

    Args:
        text: What the client sent.
        signing_keys: The accepted keys. Each is compared in constant time.
        now: Unix time in seconds.
    """
    encoded, _, signature = text.removeprefix(PREFIX).partition(".")
    if len(text) > MAX_CHARACTERS or not text.startswith(PREFIX) or not text.isascii():
        return None
    if not any(hmac.compare_digest(_signature(encoded.encode(), key), signature) for key in signing_keys):
        return None
    try:
        session, owner, expires_at = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, binascii.Error):
        return None
    return ResumeToken(session, owner, expires_at) if now < expires_at else None


def _signature(encoded: bytes, signing_key: str) -> str:
    mac = hmac.new(signing_key.encode(), b"rejoinder resume token." + encoded, hashlib.sha256)
    return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()
