"""Resume tokens: who has one may go on with its conversation, on any host.

A token is a signed text (`rejoinder.core.wire.signed_text`) that contains the session, its owner and its expiry.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from rejoinder.core.wire.signed_text import SignedText

_TOKEN = SignedText("rt_", b"rejoinder resume token.")
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
    return _TOKEN.sign([token.session, token.owner, token.expires_at], signing_key)


def read_token(text: str, signing_keys: Iterable[str], now: float) -> ResumeToken | None:
    """Return the content of a token. Return None if it is expired, changed, or signed with none of the keys.

    Args:
        text: What the client sent.
        signing_keys: The accepted keys. Each is compared in constant time.
        now: Unix time in seconds.
    """
    content = _TOKEN.read(text, signing_keys) if len(text) <= MAX_CHARACTERS else None
    if content is None:
        return None
    session, owner, expires_at = content
    return ResumeToken(session, owner, expires_at) if now < expires_at else None
