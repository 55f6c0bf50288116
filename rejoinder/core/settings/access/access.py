"""Settings that decide who may connect: keys, what they allow, and the origins of web pages."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field

from rejoinder.core.settings.section import Section


def _check_origin(origin: str) -> str:
    scheme, _, rest = origin.partition("://")
    if origin != "*" and (scheme not in ("http", "https") or not rest or "/" in rest):
        raise ValueError(f"{origin!r} is not an origin: write https://app.example, without a path, or *")
    return origin.lower()


def _check_digest(entry: str) -> str:
    if not entry.startswith("sha256:"):
        raise ValueError(
            "a key must not stand in the configuration, which Ray shows to everyone in the cluster: write sha256: and "
            "its digest, or put it into the variable or the file of keys"
        )
    return entry


def _check_network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network ({error}). Write it as 10.0.0.0/8") from None
    return text


TRUSTED_ENV = "REJOINDER_TRUSTED_PROXIES"
"""Variable of a node with `trusted_proxies`, separated by commas."""


class AccessSettings(Section):
    """Who may connect (docs/explanation/security.md)."""

    keys: tuple[Annotated[str, AfterValidator(_check_digest)], ...] = ()
    """Accepted keys as SHA-256 digests, each with its options: `sha256:DIGEST scope=talk sessions=5 per_minute=30`. The
    keys of the variable `host.api_keys_env` and of `keys_file` are accepted too. `rejoinder serve` adds its own here,
    so that hosts on other nodes accept them.
    """
    keys_file: str = ""
    """Path of a file with one key or digest on each line, with options. Lines that begin with # are comments. It is
    read by `rejoinder serve` and, if it exists there, on each node with session hosts.
    """
    required: bool = False
    """Refuse to start a host that has no key. `rejoinder serve` sets it if it has keys itself."""
    insecure: bool = False
    """Accept calls from other machines although no key is set. Without it, a host that other machines reach and that
    has no key does not start. `rejoinder serve --insecure` sets it.
    """
    origins: tuple[Annotated[str, AfterValidator(_check_origin)], ...] = ()
    """Origins of web pages that may connect, besides pages of the server's own address. * permits every page."""
    sessions_per_key: int = Field(0, ge=0)
    """Maximum number of concurrent sessions of one key on each host. 0: no limit. A key's own `sessions` goes first."""
    new_per_minute: int = Field(0, ge=0)
    """Maximum number of new sessions of one key in a minute on each host. 0: no limit. A key's own `per_minute` goes
    first.
    """
    sessions_per_address: int = Field(0, ge=0)
    """Maximum number of concurrent sessions from one network address on each host; IPv6 addresses count by their first
    64 bits. 0: no limit. HAProxy tells the host the address of a client.
    """
    trusted_proxies: tuple[Annotated[str, AfterValidator(_check_network)], ...] = ()
    """Networks of load balancers in front, such as 10.0.0.0/8. The address in their header X-Forwarded-For counts as
    the client's. Others cannot choose their address. Nodes get it as REJOINDER_TRUSTED_PROXIES.
    """
    signing_key: str = Field("", repr=False)
    """Secret that signs short-lived client secrets. `rejoinder serve` sets a random one; write none into a file."""
    signing_key_env: str = "REJOINDER_SIGNING_KEY"
    """Environment variable with the secret that signs client secrets, the same on every host. It is needed with
    `serve deploy`, and keeps client secrets valid when `rejoinder serve` starts again.
    """
