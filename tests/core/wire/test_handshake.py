"""Tests of what a client asks for with its handshake."""

from __future__ import annotations

import pytest

from rejoinder.core.wire.handshake import trace_context

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_trace_context_is_a_header_or_a_parameter() -> None:
    """Browsers cannot send headers with a WebSocket, so the address may have the context. The header comes first."""
    assert trace_context({"traceparent": PARENT}, {}) == PARENT
    assert trace_context({}, {"traceparent": PARENT}) == PARENT
    assert trace_context({"traceparent": PARENT}, {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-00"}) == PARENT
    assert trace_context({}, {}) == ""


@pytest.mark.parametrize("sent", ["", "00", PARENT.upper(), PARENT + "x", PARENT + "\n", "x" * 10_000])
def test_a_malformed_trace_context_is_ignored(sent: str) -> None:
    """The call goes on, and its turns begin traces of their own."""
    assert trace_context({"traceparent": sent}, {}) == ""
