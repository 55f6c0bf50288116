"""A minimal language model server to replace with your own: chat completions that repeat the caller's words.

    python echo_llm.py --port 8001
    rejoinder serve ray_config.yaml

Replace `words` by your model. Yield the text as it is generated: the first words are spoken before the last words are
known.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route


async def words(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    """Yield the answer to a conversation, piece by piece: here the caller's last words. Replace this by your model."""
    for word in f"You said: {messages[-1]['content']}".split():
        yield word + " "


async def completions(request: Request) -> StreamingResponse:
    """Handle POST /v1/chat/completions: stream the answer as server-sent events."""
    body = await request.json()

    async def events() -> AsyncIterator[str]:
        async for word in words(body["messages"]):
            yield event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield "data: [DONE]\n\n"

    def event(fields: dict[str, Any]) -> str:
        chunk = {"id": "echo", "object": "chat.completion.chunk", "created": 0, "model": body["model"], **fields}
        return f"data: {json.dumps(chunk)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def models(request: Request) -> JSONResponse:
    """Handle GET /v1/models, which Rejoinder's health check requests."""
    return JSONResponse({"object": "list", "data": [{"id": "echo", "object": "model"}]})


app = Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"]), Route("/v1/models", models)])

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8001)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
