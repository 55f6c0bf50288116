"""The tools of one session that the server calls: their list, the calls that run, and their results.

A call is an item of type mcp_call. Its result becomes a part of the item. A server that fails does not harm the
session: the model gets the error as the result of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from actors.stages.reporting import Metrics
from actors.stages.retry import contained
from actors.stages.tool_servers import StartTask, ToolResult, ToolServerPort, ToolServers
from rejoinder.core.errors import BackendError
from rejoinder.core.reply.tools.calls import FunctionTool, json_object
from rejoinder.core.reply.tools.server_side import ListedServer, ServerTool, exposed
from rejoinder.core.wire import server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.items import Conversation, Item
from rejoinder.core.wire.mcp_tools import McpRequest

MOST_RUNNING = 8
"""Maximum number of calls of one session that run at the same time. Further ones wait."""


@dataclass(frozen=True, slots=True)
class ToolChannel:
    """What the tools of a session need from it.

    Attributes:
        conversation: The items of the conversation.
        emit: Sends a server event.
        stamp: Returns a new id with a prefix.
        changed: Called if the conversation has changed.
    """

    conversation: Conversation
    emit: Callable[[Json], None]
    stamp: Callable[[str], str]
    changed: Callable[[], None]


class SessionTools:
    """Tools of one session that the server calls. Not thread-safe.

    Attributes:
        finished: Called when the last running call of the session has its result.
        listed: Called when the tools have changed.
    """

    def __init__(self, servers: ToolServers, channel: ToolChannel, metrics: Metrics) -> None:
        """Create the tools of a session, of which none is known before `start`."""
        self.finished: Callable[[], None] = lambda: None
        self.listed: Callable[[], None] = lambda: None
        self._servers = servers
        self._channel = channel
        self._metrics = metrics
        self._start: StartTask | None = None
        self._known: dict[str, ListedServer] = {}
        self._by_label: dict[str, ToolServerPort] = {}
        self._requested: dict[str, McpRequest] = {}
        self._running = 0
        self._slots = asyncio.Semaphore(MOST_RUNNING)

    def start(self, start: StartTask) -> None:
        """List the tools of the servers that every session has. `start` starts tasks of the session.

        Calls that ran when the session was cut off have failed: their host is gone.
        """
        self._start = start
        for item in list(self._channel.conversation):
            if item.call.get("call_id") in self._channel.conversation.running_calls:
                lost = {"error": {"type": "tool_execution_error", "message": "The connection was lost."}}
                self._channel.conversation.update(replace(item, call=item.call | lost))
        for port in self._servers.ports.values():
            if port.for_all:
                start(self._list(port, None))

    def request(self, requests: Sequence[McpRequest]) -> None:
        """List the tools of the servers that the client requests, and forget those that it no longer requests."""
        wanted = {request.label: request for request in requests}
        for label in self._requested.keys() - wanted.keys():
            self._known.pop(label, None)
        changed = [request for request in requests if self._requested.get(request.label) != request]
        self._requested = wanted
        for request in changed:
            port = self._servers.requested(request.label, request.url)
            if port is not None and self._start is not None:
                self._start(self._list(port, request))

    def offered(self, taken: Sequence[str]) -> tuple[FunctionTool, ...]:
        """Return the tools that the model may call. `taken` has the names of the client's own tools."""
        return tuple(found.tool for found in exposed(tuple(self._known.values()), taken))

    def run(self, items: Sequence[Item], taken: Sequence[str]) -> None:
        """Start the calls among these items of a response that the server makes.

        Args:
            items: The calls of the response.
            taken: Names of the client's own tools in the response.
        """
        by_name = {found.tool.name: found for found in exposed(tuple(self._known.values()), taken)}
        mine = [item for item in items if item.type == "mcp_call"]
        self._running += len(mine)
        for item in mine:
            if self._start is not None:
                self._start(self._call(item, by_name.get(str(item.call["name"]))))

    async def _list(self, port: ToolServerPort, request: McpRequest | None) -> None:
        """List the tools of a server. The client learns of it if it has requested the server."""
        label = request.label if request else port.label
        item = Item(self._channel.stamp("item"), type="mcp_list_tools", role="system", text=None)
        if request:
            self._channel.emit(server.mcp_list_tools("in_progress", item.id))
        try:
            tools = await port.tools()
        except BackendError:
            self._metrics.error("backend", "tools")
            if request:
                self._channel.emit(server.mcp_list_tools("failed", item.id))
            return
        if request and self._requested.get(label) != request:
            return  # the client has changed its mind meanwhile
        self._known[label] = ListedServer(label, tools, request.allowed if request else None)
        self._by_label[label] = port
        if request:
            shown = [tool for tool in tools if request.allowed is None or tool.name in request.allowed]
            found = replace(item, call={"server_label": label, "tools": [_listed(tool) for tool in shown]})
            previous = self._channel.conversation.append(found)
            self._channel.emit(server.item_event("added", found, previous))
            self._channel.emit(server.item_event("done", found, previous))
            self._channel.emit(server.mcp_list_tools("completed", item.id))
        self.listed()

    async def _call(self, item: Item, found: ServerTool | None) -> None:
        result = ToolResult("The call failed inside this server.", failed=True)
        with contained("tools", self._metrics, what=f"the tool {item.call['name']}"):
            async with self._slots:
                result = await self._result(item, found)
        if result.failed:
            self._metrics.error("backend", "tools")
        outcome: Json = {"output": result.text}
        if result.failed:
            outcome = {"error": {"type": "tool_execution_error", "message": result.text}}
        done = replace(item, status="completed", call=item.call | outcome)
        self._channel.conversation.update(done)
        self._channel.emit(server.mcp_call("failed" if result.failed else "completed", item))
        if done.id in self._channel.conversation:
            previous = self._channel.conversation.predecessor(done.id)
            self._channel.emit(server.item_event("done", done, previous))
        self._channel.changed()
        self._running -= 1
        if not self._running:
            self.finished()

    async def _result(self, item: Item, found: ServerTool | None) -> ToolResult:
        arguments = json_object(str(item.call["arguments"]))
        if found is None:
            return ToolResult("This tool is not available any more.", failed=True)
        if arguments is None:
            return ToolResult("The arguments are not a JSON object.", failed=True)
        return await self._by_label[found.tool.server].call(found.remote_name, arguments)


def _listed(tool: FunctionTool) -> Json:
    return {"name": tool.name, "description": tool.description, "input_schema": tool.schema}
