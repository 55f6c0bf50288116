"""Settings of the session journal, which keeps conversations outside their host."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rejoinder.core.settings.section import Positive, Section


def _check_redis_url(url: str) -> str:
    if url and not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(f"{url!r} is not an address of Redis: write redis://HOST:PORT/0 or rediss://HOST:PORT/0")
    return url


class JournalSettings(Section):
    """Session journal: copies of conversations, with which calls survive their host (docs/explanation/survival.md)."""

    enabled: bool = True
    """Keep conversations outside their host, and give each session a resume token."""
    copies: int = Field(2, ge=1, le=3)
    """Number of journals that keep each conversation, each on another node."""
    keep_s: Positive = 120.0
    """Seconds for which a conversation is kept after its host was last heard of, or after the client was cut off."""
    node_bytes: int = Field(268_435_456, ge=1_048_576)
    """Maximum size of the conversations in the journal of one node, in bytes. The oldest are dropped first."""
    put_timeout_ms: Positive = 500.0
    """Milliseconds after which a journal that does not confirm a put is left out for a while."""
    redis_url: Annotated[str, AfterValidator(_check_redis_url)] = Field("", repr=False)
    """Address of a Redis server that keeps the conversations instead of the nodes' journals, such as
    redis://HOST:6379/0. Empty: the nodes' journals.
    """
    key: str = Field("", repr=False)
    """Secret with which conversations are encrypted before they leave the host; "" for no encryption. `rejoinder serve`
    sets it from the variable `key_env`; write none into a file.
    """
    key_env: str = "REJOINDER_JOURNAL_KEY"
    """Environment variable with the secret that encrypts conversations, the same on every host."""
