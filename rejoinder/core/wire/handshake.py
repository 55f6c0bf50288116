"""What a client asks for with the address and the headers of its WebSocket handshake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from rejoinder.core.errors import CallerError
from rejoinder.core.turns.endpointing import DetectionMode, TurnDetection
from rejoinder.core.wire.fields import Fields, Json, refuse
from rejoinder.core.wire.session import (
    REALTIME,
    TRANSCRIPTION,
    SessionConfig,
    ends_turns_itself,
    merge,
    refused_tools,
)
from rejoinder.core.wire.unserved import left_out

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

PATHS = ("/v1/realtime", "/realtime", "/openai/v1/realtime")
"""Paths of the WebSocket, also with a slash at the end. The last one is Azure's."""
MODEL = "rejoinder"
"""Name of the model of a session whose client names none."""


def started(session: Json, query: Mapping[str, str]) -> SessionConfig:
    """Return the configuration with which a session begins.

    Args:
        session: The settings in a client secret; empty for none.
        query: The parameters of the address: `model`, or Azure's `deployment`, and `intent`.

    Raises:
        CallerError: A setting is invalid.
    """
    model = query.get("model") or query.get("deployment")
    config = SessionConfig(model=model or MODEL)
    kind = TRANSCRIPTION if query.get("intent") == TRANSCRIPTION else REALTIME
    if kind == TRANSCRIPTION:
        config = replace(config, type=kind, transcription={"model": model} if model else {})
        if ends_turns_itself(config):
            config = replace(config, detection=TurnDetection(mode=DetectionMode.NONE))
    if not session:
        return config
    fields = Fields({"type": kind, **session}, "session")
    if unserved := left_out(fields) + refused_tools(fields):
        raise unserved[0]
    return merge(config, fields)


def drops_replies(headers: Mapping[str, str]) -> bool:
    """Return True if a client drops a reply for good when it learns that the caller speaks.

    These are LiveKit's plugin and OpenAI's agents SDKs, known by their headers.
    `headers` has names in lower case, or is a case-insensitive mapping.
    """
    agent = headers.get("user-agent", "")
    protocols = (part.strip() for part in headers.get("sec-websocket-protocol", "").split(","))
    return (
        agent.startswith(("LiveKit Agents", "Agents/"))
        or "x-openai-agents-sdk" in headers
        or any(name.startswith("openai-agents-sdk") for name in protocols)
    )


def trace_context(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """Return the W3C trace context of a client: its header or its parameter `traceparent`; "" if it is malformed.

    Browsers cannot send headers with a WebSocket, so the address may have it as a parameter.
    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    sent = headers.get("traceparent") or query.get("traceparent") or ""
    return sent if _TRACEPARENT.fullmatch(sent) else ""


def unserved_handshake(query: Mapping[str, str], headers: Mapping[str, str]) -> CallerError | None:
    """Return why a handshake with this address and these headers is refused; None if it is not.

    Args:
        query: The parameters of the address.
        headers: The headers, with names in lower case or a case-insensitive mapping.
    """
    protocols = [part.strip() for part in headers.get("sec-websocket-protocol", "").split(",")]
    if "realtime=v1" in headers.get("openai-beta", "") or "openai-beta.realtime-v1" in protocols:
        return refuse(
            "This server speaks the GA version of the Realtime API, and the client asks for the beta version.",
            "OpenAI-Beta",
            code="beta_not_supported",
            remedy="Use a client of the GA version, and send no header OpenAI-Beta.",
        )
    if query.get("call_id"):
        return refuse(
            "No call with this call_id.",
            "call_id",
            code="call_not_found",
            remedy="Leave call_id out to open a new session.",
        )
    return None
