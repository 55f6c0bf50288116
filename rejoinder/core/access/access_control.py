"""Access control of one host: who a client is, what it may do, and how many sessions it may have."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rejoinder.core.access.api_keys import ApiKey, Scope, find_key
from rejoinder.core.access.client_secrets import ClientSecret, requested, sign, verify
from rejoinder.core.access.origins import is_allowed
from rejoinder.core.access.token_bucket import TokenBucket
from rejoinder.core.settings.access.access import AccessSettings
from rejoinder.core.wire.fields import Fields, Json

MINUTE_S = 60.0
RETRY_S = 5.0
"""Seconds after which a client that has all its sessions may ask again."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client that was admitted.

    Attributes:
        key: Its key, or the key with which its client secret was requested. None if the host has no keys.
        session: Settings with which its session begins, from a client secret.
        address: Its network address as `network_of` returns it, "" if it is unknown.
    """

    key: ApiKey | None
    session: Json = field(default_factory=dict)
    address: str = ""

    @property
    def tenant(self) -> str:
        """Name of the key's holder, "" if the host has no keys."""
        return self.key.tenant if self.key else ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a client may have no further session.

    Attributes:
        message: The reason.
        wait_s: Seconds after which it may ask again.
    """

    message: str
    wait_s: float


def network_of(address: str) -> str:
    """Return the network by which sessions of an address are counted: an IPv4 address, or 64 bits of an IPv6 address.

    One machine usually has all addresses with the same first 64 bits. The result is "" for a text that is no address.
    """
    try:
        parsed = ipaddress.ip_address(address.strip().strip("[]"))
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class AccessControl:
    """Keys, client secrets, origins and limits of the keys on one host. Not thread-safe."""

    def __init__(self, keys: Iterable[ApiKey] = (), settings: AccessSettings | None = None) -> None:
        """Create the access control. Without keys every client is admitted.

        Args:
            keys: The accepted keys.
            settings: The settings; None for the default ones.
        """
        self.settings = settings or AccessSettings()
        self.keys = tuple(keys)
        self._sessions: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._starts: dict[str, TokenBucket] = {}

    def origin_allowed(self, origin: str | None, host: str | None) -> bool:
        """Return True if a request with these headers Origin and Host may be served. None: the header is missing."""
        return is_allowed(origin, host, self.settings.origins)

    def client(self, candidates: Iterable[str], scope: Scope, now: float) -> Client | None:
        """Return the client that sent one of these keys or client secrets, None if it may not use `scope`.

        Args:
            candidates: The texts that the client sent where a key may stand.
            scope: What the client wants to do. A client secret is only good for TALK.
            now: Unix time in seconds.
        """
        candidates = tuple(candidates)
        key = find_key(self.keys, candidates)
        if key is not None:
            return Client(key) if key.allows(scope) else None
        secrets = (verify(candidate, self.settings.signing_key, now) for candidate in candidates)
        secret = next((secret for secret in secrets if secret), None)
        if not self.keys:
            return Client(None, secret.session if secret else {})
        issuer = next((key for key in self.keys if secret and key.digest == secret.digest), None)
        if secret is None or issuer is None or scope is not Scope.TALK or not issuer.allows(scope):
            return None
        return Client(issuer, secret.session)

    def resuming(self, owner: str, candidates: Iterable[str], now: float) -> Client | None:
        """Return the client that resumes a session, None if it is not the owner's or the owner's key is gone.

        The resume token is enough: a client secret may have expired since the session began. But a client that sends
        another valid key is not the owner.

        Args:
            owner: Digest of the key that opened the session, from the checked resume token; "" if there were no keys.
            candidates: The texts that the client sent where a key may stand.
            now: Unix time in seconds.
        """
        if not self.keys:
            return Client(None) if not owner else None
        sender = self.client(candidates, Scope.TALK, now)
        key = next((key for key in self.keys if key.digest == owner and key.allows(Scope.TALK)), None)
        if key is None or (sender and sender.key and sender.key.digest != owner):
            return None
        return Client(key)

    def enter(self, client: Client, now: float, *, resumed: bool = False) -> Refusal | None:
        """Count a new session of a client and return None. If it may have no more, return why and count nothing.

        Call `leave` when the session ends.

        Args:
            client: The client.
            now: Monotonic time in seconds.
            resumed: True for a session that was cut off. It is counted and never refused.
        """
        if not resumed and (refusal := self._refusal(client, now)):
            return refusal
        if client.key:
            self._sessions[client.key.digest] += 1
        if client.address:
            self._addresses[client.address] += 1
        return None

    def leave(self, client: Client) -> None:
        """Count the end of a session that `enter` has counted."""
        for counts, name in ((self._sessions, client.key and client.key.digest), (self._addresses, client.address)):
            if name:
                counts[name] -= 1
                if not counts[name]:
                    del counts[name]

    def _refusal(self, client: Client, now: float) -> Refusal | None:
        """Return why a client may have no further session at `now`, None if it may."""
        most = self.settings.sessions_per_address
        if most and client.address and self._addresses[client.address] >= most:
            return Refusal("This network address has as many sessions as it may.", RETRY_S)
        return self._key_refusal(client.key, now) if client.key else None

    def _key_refusal(self, key: ApiKey, now: float) -> Refusal | None:
        """Return why the key may have no further session at `now`. Otherwise count one of its new sessions."""
        most = self.settings.sessions_per_key if key.sessions is None else key.sessions
        if most and self._sessions[key.digest] >= most:
            return Refusal("This key has as many sessions as it may.", RETRY_S)
        per_minute = self.settings.new_per_minute if key.per_minute is None else key.per_minute
        if per_minute:
            bucket = self._starts.setdefault(key.digest, TokenBucket(per_minute / MINUTE_S, per_minute))
            if not bucket.take(now):
                message = "This key has opened as many sessions in a minute as it may."
                return Refusal(message, bucket.wait_s(now, 1.0))
        return None

    def issue(self, client: Client, body: Fields, now: float) -> tuple[str, ClientSecret]:
        """Return a new client secret as text, and what it contains.

        Args:
            client: The client that requests it.
            body: The body of its request.
            now: Unix time in seconds.

        Raises:
            CallerError: A field of the body is invalid.
        """
        secret = requested(body, client.key.digest if client.key else "", now)
        return sign(secret, self.settings.signing_key), secret
