"""Tests of the configuration with which a session begins."""

from __future__ import annotations

import pytest

from rejoinder.core.errors import CallerError
from rejoinder.core.wire.handshake import started


def test_a_client_secret_cannot_request_an_mcp_server() -> None:
    """Tools of type mcp are requested in a session.update. In a client secret they are refused and not dropped."""
    with pytest.raises(CallerError) as refused:
        started({"tools": [{"type": "mcp", "server_label": "docs"}]}, {})
    assert refused.value.param == "session.tools[0].type"
