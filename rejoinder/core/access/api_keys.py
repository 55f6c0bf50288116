"""API keys: their list as text, what each allows, and the comparison with what a client sends.

Only digests are kept. A key is a long random text, so a digest needs no salt and no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from rejoinder.core.errors import ConfigError

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class Scope(Enum):
    """What a key allows. TALK: sessions and client secrets. METRICS: the list of targets. ADMIN: everything."""

    TALK = "talk"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One accepted key.

    Attributes:
        digest: SHA-256 of the key, in hexadecimal digits.
        scopes: What the key allows.
        sessions: Maximum number of its concurrent sessions on a host; None for the setting's.
        per_minute: Maximum number of its new sessions in a minute on a host; None for the setting's.
    """

    digest: str
    scopes: frozenset[Scope] = frozenset({Scope.TALK, Scope.METRICS})
    sessions: int | None = None
    per_minute: int | None = None

    @property
    def tenant(self) -> str:
        """Name of the key's holder that does not reveal the key, as `answer_cache.tenant_of` returns it."""
        return self.digest[:16]

    def allows(self, scope: Scope) -> bool:
        """Return True if the key may be used for `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def entry(self) -> str:
        """Return the key as an entry that `parse_keys` reads, with the digest instead of the key."""
        options = [f"scope={'+'.join(sorted(scope.value for scope in self.scopes))}"]
        options += [f"sessions={self.sessions}"] if self.sessions is not None else []
        options += [f"per_minute={self.per_minute}"] if self.per_minute is not None else []
        return " ".join([f"sha256:{self.digest}", *options])


def parse_keys(text: str, source: str) -> tuple[ApiKey, ...]:
    """Return the keys in a text: entries separated by commas or lines, each a key or `sha256:DIGEST`, and its options.

    Options stand behind the key, separated by blanks: `scope=talk+metrics`, `sessions=5`, `per_minute=30`.

    Args:
        text: The text. Lines that begin with # are comments.
        source: Name of the variable or file, for errors. Errors never contain a key.

    Raises:
        ConfigError: An option is wrong, or there is no key. A list that is present but empty would admit everybody.
    """
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    entries = [part.split() for line in lines for part in line.split(",") if part.strip()]
    if not entries:
        raise ConfigError(
            "there is no key in it.",
            "Add a key, or remove the variable or setting: then every client is admitted.",
            field=source,
        )
    return tuple(_key(words, f"{source}, entry {number}") for number, words in enumerate(entries, 1))


def _key(words: list[str], where: str) -> ApiKey:
    name, *options = words
    digest = _DIGEST.fullmatch(name)
    if name.startswith("sha256:") and not digest:
        raise ConfigError("the digest does not have 64 hexadecimal digits in lower case.", field=where)
    key = ApiKey(digest[1] if digest else digest_of(name))
    scopes, numbers = key.scopes, {"sessions": key.sessions, "per_minute": key.per_minute}
    for option in options:
        field, _, value = option.partition("=")
        try:
            if field == "scope":
                scopes = frozenset(Scope(part) for part in value.split("+"))
            elif field in numbers and int(value) > 0:
                numbers[field] = int(value)
            else:
                raise ValueError(field)
        except ValueError:
            raise ConfigError(
                "an option behind the key is wrong.",
                "Use scope=talk+metrics+admin, sessions=NUMBER or per_minute=NUMBER, separated by blanks.",
                field=where,
            ) from None
    return ApiKey(key.digest, scopes, **numbers)


def digest_of(key: str) -> str:
    """Return the SHA-256 of a key in hexadecimal digits."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def find_key(keys: Iterable[ApiKey], candidates: Iterable[str]) -> ApiKey | None:
    """Return the accepted key that a client sent, None if it sent none.

    Every candidate is compared with every key, in constant time, so that the time reveals nothing.

    Args:
        keys: The accepted keys.
        candidates: The texts that the client sent where a key may stand.
    """
    known, found = tuple(keys), None
    for candidate in candidates:
        digest = digest_of(candidate)
        for key in known:
            if hmac.compare_digest(digest, key.digest):
                found = key
    return found
