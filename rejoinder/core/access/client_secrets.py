"""Short-lived client secrets: a backend gets one with its key and gives it to a browser.

A secret is a signed text (`rejoinder.core.wire.signed_text`) that contains what it allows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from rejoinder.core.wire.fields import Fields, Json, refuse
from rejoinder.core.wire.signed_text import SignedText

PREFIX = "ek_"
_SECRET = SignedText(PREFIX, b"rejoinder client secret.")
MIN_S, MAX_S, DEFAULT_S = 10, 7200, 600
MAX_SESSION_JSON = 4096
"""Maximum characters of the session's settings in a secret, which travels in a header."""


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """What a client secret contains.

    Attributes:
        digest: Digest of the key with which the secret was requested. It is valid only while that key is.
        expires_at: Unix time in seconds at which it expires. A session that has begun goes on.
        session: Settings with which a session begins.
    """

    digest: str
    expires_at: int
    session: Json


def requested(body: Fields, digest: str, now: float) -> ClientSecret:
    """Return the secret that the body of a request asks for.

    Args:
        body: The body of `POST /v1/realtime/client_secrets`.
        digest: Digest of the key in the request.
        now: Unix time in seconds.

    Raises:
        CallerError: A field is invalid.
    """
    expiry = body.child("expires_after") if body.raw("expires_after") is not None else Fields({}, "expires_after")
    expiry.choice("anchor", ("created_at",), "created_at")
    seconds = expiry.whole("seconds", MIN_S, MAX_S, DEFAULT_S)
    session = body.child("session").as_dict() if body.raw("session") is not None else {}
    if (size := len(json.dumps(session))) > MAX_SESSION_JSON:
        raise refuse(
            f"session has {size} characters as JSON.",
            "session",
            remedy=f"Send at most {MAX_SESSION_JSON}, and the rest in a session.update.",
        )
    return ClientSecret(digest, int(now) + seconds, session)


def sign(secret: ClientSecret, signing_key: str) -> str:
    """Return the secret as the text that a client sends instead of a key."""
    return _SECRET.sign([secret.digest, secret.expires_at, secret.session], signing_key)


def verify(text: str, signing_key: str, now: float) -> ClientSecret | None:
    """Return the content of a client secret, None if it is expired, changed, or signed with another key.

    Args:
        text: What the client sent.
        signing_key: The signing key; "" accepts no secret.
        now: Unix time in seconds.
    """
    content = _SECRET.read(text, [signing_key] if signing_key else [])
    if content is None:
        return None
    digest, expires_at, session = content
    return ClientSecret(digest, expires_at, session) if now < expires_at else None
