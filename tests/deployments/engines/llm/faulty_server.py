"""A stand-in for a chat completions server that plays one fault, and the list of the faults.

The server is a task of the test's event loop. It answers each request to chat completions with the next response of a
script, and repeats the last one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

SSE = "text/event-stream"
ANSWER = "The capital of France is Paris."
DONE = "data: [DONE]\n\n"

Part = str | float
"""Part of a response's body: text to send, or seconds to wait."""


@dataclass(frozen=True)
class Reply:
    """A response of the server.

    Attributes:
        parts: The body: texts, with pauses in seconds.
        status: Status line.
        kind: Content type.
        headers: Further header lines, each with its line break.
        cut: True to announce more text than is sent, so that the connection breaks in the body.
    """

    parts: tuple[Part, ...] = ()
    status: str = "200 OK"
    kind: str = SSE
    headers: str = ""
    cut: bool = False


def chunk(finish: str | None = None, **delta: object) -> str:
    """Return a server-sent event with one choice that has this delta and finish reason."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


def words(text: str, pause_s: float = 0.0) -> tuple[Part, ...]:
    """Return the events of `text`, one for each word, as models split it: white space begins a token."""
    tokens = [word if number == 0 else f" {word}" for number, word in enumerate(text.split(" "))]
    return tuple(part for token in tokens for part in (pause_s, chunk(content=token)))


def good(text: str = ANSWER) -> Reply:
    """Return the response of a working server."""
    return Reply((*words(text), chunk("stop"), DONE))


def error(status: str, code: str = "", message: str = "no", headers: str = "") -> Reply:
    """Return an error response with OpenAI's error object."""
    body = json.dumps({"error": {"message": message, "type": "error", "code": code}})
    return Reply((body,), status, "application/json", headers)


@dataclass
class FaultyServer:
    """The server. It repeats the last reply, and lists its models with status 200.

    Attributes:
        replies: The responses to the next requests.
        requests: Bodies of all requests.
    """

    replies: list[Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Listen on a free port, and yield the address for `llm.base_url`."""
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as listening:
            yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if head.startswith("get"):
                await self._send(writer, Reply(('{"object": "list", "data": []}',), kind="application/json"))
                return
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            self.requests.append(json.loads(await reader.readexactly(length)))
            await self._send(writer, self.replies.pop(0) if len(self.replies) > 1 else self.replies[0])
        except ConnectionError:
            pass  # the client has closed the connection
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        cut = "Content-Length: 1000000\r\n" if reply.cut else ""
        head = f"HTTP/1.1 {reply.status}\r\nConnection: close\r\nContent-Type: {reply.kind}\r\n{cut}{reply.headers}\r\n"
        writer.write(head.encode())
        for part in reply.parts:
            if isinstance(part, str):
                writer.write(part.encode())
                await writer.drain()
            elif part:
                await asyncio.sleep(part)
