"""Signatures of Twilio's requests (https://www.twilio.com/docs/usage/security#validating-requests).

Twilio signs the full address of a request, and of a form its fields. It does so for the handshake of a stream, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Iterator

DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}


def signature_of(auth_token: str, url: str, form: Iterable[tuple[str, str]] = ()) -> str:
    """Return the signature of a request.

    It is the HMAC-SHA1, in base64, of the address and of all fields in the order of their names, each as its name
    directly followed by its value.

    Args:
        auth_token: The account's auth token.
        url: The full address, with the query.
        form: Names and values of the form of a POST request. Equal pairs count once.
    """
    fields = "".join(name + value for name, value in sorted(set(form)))
    mac = hmac.new(auth_token.encode(), (url + fields).encode(errors="replace"), hashlib.sha1)
    return base64.b64encode(mac.digest()).decode()


def is_signed(signature: str, auth_token: str, url: str, form: Iterable[tuple[str, str]] = ()) -> bool:
    """Return True if `signature` is that of a request. It is compared in constant time.

    Twilio may sign the address with or without the default port, so both are right.

    Args:
        signature: Header `X-Twilio-Signature`; "" is never right.
        auth_token: The account's auth token; "" accepts nothing.
        url: The address that Twilio was given.
        form: Names and values of the form.
    """
    if not auth_token or not signature.isascii():
        return False
    pairs = tuple(form)
    known = (signature_of(auth_token, variant, pairs) for variant in _with_and_without_port(url))
    return any(hmac.compare_digest(signature, right) for right in known)


def _with_and_without_port(url: str) -> Iterator[str]:
    """Yield an address as it is, and with the default port of its scheme added or removed."""
    yield url
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    port = DEFAULT_PORTS.get(scheme)
    name, _, given = host.rpartition(":")
    if given == str(port):
        yield f"{scheme}://{name}{slash}{path}"
    elif port and not (name and given.isdigit()):
        yield f"{scheme}://{host}:{port}{slash}{path}"
