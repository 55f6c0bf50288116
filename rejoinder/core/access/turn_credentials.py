"""Short-lived user names and passwords for TURN servers, as a shared secret makes them.

coturn calls it `use-auth-secret`; the draft is https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00.
The server checks the signature, so it needs no list of users.
"""

from __future__ import annotations

import base64
import hashlib
import hmac


def turn_credentials(secret: str, ttl_s: float, now: float) -> tuple[str, str]:
    """Return a user name, which contains the time of its expiry, and its password.

    Args:
        secret: The secret that is shared with the TURN server.
        ttl_s: Seconds for which they are valid.
        now: Unix time in seconds.
    """
    username = f"{int(now + ttl_s)}:rejoinder"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(digest).decode("ascii")
