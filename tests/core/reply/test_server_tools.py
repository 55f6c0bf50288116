"""Tests of tools that the server calls: unique names, allow-lists, and capped results."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.tools.calls import FunctionTool
from rejoinder.core.reply.tools.server_side import MOST_SERVER_TOOLS, ListedServer, capped, exposed


def listed(label: str, *names: str, allowed: frozenset[str] | None = None) -> ListedServer:
    return ListedServer(label, tuple(FunctionTool(name) for name in names), allowed)


def test_every_tool_has_a_name_of_its_own() -> None:
    """A name that is taken, or that a model cannot write, gets its server's label. The server keeps its own name."""
    servers = [listed("a", "find", "look up"), listed("b", "find", "mine")]
    found = exposed(servers, ["mine"])
    assert [(each.tool.name, each.tool.server, each.remote_name) for each in found] == [
        ("find", "a", "find"),
        ("a_look_up", "a", "look up"),
        ("b_find", "b", "find"),
        ("b_mine", "b", "mine"),
    ]


def test_only_allowed_tools_are_exposed_and_not_too_many() -> None:
    """Tools outside the allow-list are left out, and at most MOST_SERVER_TOOLS remain."""
    assert [each.remote_name for each in exposed([listed("a", "x", "y", allowed=frozenset({"y"}))])] == ["y"]
    many = exposed([listed("a", *(f"tool{number}" for number in range(200)))])
    assert len(many) == MOST_SERVER_TOOLS


@given(st.text(max_size=400), st.integers(100, 300))
def test_a_result_never_exceeds_its_bytes(text: str, most: int) -> None:
    """A short result is unchanged; a long one is cut within its bytes, also in the middle of a character."""
    found = capped(text, most)
    assert len(found.encode()) <= most
    assert found == text or ("cut off" in found and text.startswith(found.split(" [cut off")[0]))


@pytest.mark.parametrize("text", ["é" * 400, "x" * 400])
def test_the_model_is_told_of_the_cut(text: str) -> None:
    """The note has the size of the whole result."""
    assert capped(text, 200).endswith(f"[cut off: the result has {len(text.encode())} bytes]")
