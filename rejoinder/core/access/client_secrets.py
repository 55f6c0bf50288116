"""Short-lived client secrets: a backend gets one with its key and gives it to a browser.

A secret contains what it allows, and a signature (HMAC-SHA-256). So every host that has the signing key can check it,
and no host stores it. It has the form `ek_CONTENT.SIGNATURE`, both in URL-safe base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from rejoinder.core.wire.fields import Fields, Json, refuse

PREFIX = "ek_"
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
    content = json.dumps([secret.digest, secret.expires_at, secret.session], separators=(",", ":"))
    encoded = base64.urlsafe_b64encode(content.encode()).rstrip(b"=")
    return f"{PREFIX}{encoded.decode()}.{_signature(encoded, signing_key)}"


def verify(text: str, signing_key: str, now: float) -> ClientSecret | None:
    """Return the content of a client secret, None if it is expired, changed, or signed with another key.

    Args:
        text: What the client sent.
        signing_key: The signing key; "" accepts no secret.
        now: Unix time in seconds.
    """
    encoded, _, signature = text.removeprefix(PREFIX).partition(".")
    if not signing_key or not text.startswith(PREFIX) or not text.isascii():
        return None
    if not hmac.compare_digest(_signature(encoded.encode(), signing_key), signature):
        return None
    try:
        digest, expires_at, session = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, binascii.Error):
        return None
    return ClientSecret(digest, expires_at, session) if now < expires_at else None


def _signature(encoded: bytes, signing_key: str) -> str:
    mac = hmac.new(signing_key.encode(), b"rejoinder client secret." + encoded, hashlib.sha256)
    return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()
