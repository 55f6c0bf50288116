"""Tests of `rejoinder bench tools`: the request files, the judgement of calls, and when the result holds."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from loadtest.benches.tools.requests import DEVELOPMENT_SET, TEST_SET, CallFault, ToolRequest, read_requests
from rejoinder.cli.bench import tools as bench
from rejoinder.core.reply.tools.calls import ToolCall
from rejoinder.core.reply.tools.schema_values import smallest_value
from rejoinder.core.settings.settings import Settings
from tests.cli.printing import printed_rows


class FirstTool:
    """Language model that calls the first tool of each request, with the smallest valid arguments."""

    name, prefills = "first", False

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta]:
        tool = request.tools.tools[0]
        call = ToolCall(tool.name, str(smallest_value(tool.schema)).replace("'", '"'))
        yield TokenDelta("", 0, "tool_calls", LlmUsage(1, 1), calls=(call,))

    async def check_health(self) -> None:
        """Do nothing."""


def request(text: str) -> ToolRequest:
    """Return the request of the test set with this text."""
    return next(found for found in read_requests() if found.text == text)


@pytest.mark.parametrize(("path", "needed", "talk"), [(TEST_SET, 50, 10), (DEVELOPMENT_SET, 20, 10)])
def test_the_request_files_are_complete(path: object, needed: int, talk: int) -> None:
    """Each request names one of three declared tools and accepts some arguments; no text occurs in both files."""
    found = read_requests(path)  # type: ignore[arg-type]  # the parameters are paths
    assert [sum(bool(one.tool) for one in found), sum(not one.tool for one in found)] == [needed, talk]
    for one in found:
        assert len(one.offer.tools) == 3
        if one.tool:
            (tool,) = [tool for tool in one.offer.tools if tool.name == one.tool]
            assert set(one.values) <= set(tool.schema["properties"])
    assert not {one.text for one in read_requests(TEST_SET)} & {one.text for one in read_requests(DEVELOPMENT_SET)}


def test_calls_are_judged() -> None:
    """A call is right if tool, schema and values are; each fault has its name."""
    timer = request("Set a timer for ten minutes.")
    right = ToolCall("set_timer", '{"minutes": 10}')
    assert timer.fault([right]) is None
    assert timer.fault([]) is CallFault.SILENT
    assert timer.fault([ToolCall("play_music", '{"what": "jazz"}')]) is CallFault.TOOL
    assert timer.fault([right, right]) is CallFault.TOOL
    for arguments in ("{}", '{"minutes": "10"}', '{"minutes": 10, "hours": 1}', '{"minutes'):
        assert timer.fault([ToolCall("set_timer", arguments)]) is CallFault.SCHEMA
    assert timer.fault([ToolCall("set_timer", '{"minutes": 5}')]) is CallFault.VALUES
    talk = request("Tell me a joke.")
    assert (talk.fault([]), talk.fault([right])) == (None, CallFault.NEEDLESS)


def test_the_shares_count_right_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that always calls the first tool is right where that tool is needed, and calls needlessly in talk."""
    monkeypatch.setattr(bench, "open_engine", lambda settings: FirstTool())
    requests = [
        request(text) for text in ("Set a timer for ten minutes.", "How warm is it in Madrid?", "Tell me a joke.")
    ]
    found = bench.measure(Settings(), requests, spoken=False)
    assert (found.share, found.share_of_values, found.needless) == (0.5, 0.0, (1, 1))
    rows = [tuple(cells) for cells in printed_rows(bench.table(found))]
    assert ("right tool, arguments fit the schema", "50% of 2") in rows
    assert len(printed_rows(bench.faults_table(found))) == 3
    assert found.document()["needless"] == 1
