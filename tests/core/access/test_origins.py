"""Tests of the origin check: only pages of the server's own address, and listed ones, may connect."""

from __future__ import annotations

import pytest

from rejoinder.core.access.origins import is_allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "127.0.0.1:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("https://voice.example", "voice.example", True),
        ("https://voice.example:443", "VOICE.example", True),
        ("https://app.example", "voice.example", True),
        ("HTTPS://APP.example", "voice.example", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("https://evil.example", "127.0.0.1:8000", False),
        ("http://127.0.0.1:8001", "127.0.0.1:8000", False),
        ("http://127.0.0.1:8000.evil.example", "127.0.0.1:8000", False),
        ("https://voice.example.evil.example", "voice.example", False),
        ("https://app.example.evil.example", "voice.example", False),
        ("null", "127.0.0.1:8000", False),
        ("", "127.0.0.1:8000", False),
        ("file://", "", False),
        ("http://", None, False),
    ],
)
def test_only_own_and_listed_origins_are_allowed(origin: str | None, host: str | None, allowed: bool) -> None:
    """A page of the host's own address or of the listed https://app.example is allowed, as is a client without Origin.

    Every other origin is refused, also one whose name begins with an allowed name.
    """
    assert is_allowed(origin, host, ("https://app.example",)) is allowed


def test_a_star_allows_every_origin() -> None:
    """With * in the list every page may connect."""
    assert is_allowed("https://evil.example", "127.0.0.1:8000", ("*",))
