"""What follows a call of a tool: a short phrase while it runs for long, and a reply when this system has called it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.replying.reply import Reply
from actors.stages.session_context import SessionContext
from rejoinder.core.reply.tools.calls import ToolMode

MOST_IN_A_ROW = 5
"""Replies in a row that this system starts and that may call tools, each for the results of the one before."""


class LeadIn:
    """Phrase that the caller hears while a tool runs, once for each reply that calls tools and says nothing.

    It is not said if the tool's result has arrived, if another reply has begun, or if the caller speaks.
    """

    def __init__(
        self,
        context: SessionContext,
        quiet: Callable[[Reply], bool],
        say: Callable[[str], None],
    ) -> None:
        """Create the lead-ins of a session.

        Args:
            context: Settings, conversation.
            quiet: Returns True if nobody speaks and the given reply is still the newest.
            say: Starts a reply with the given words.
        """
        self._context = context
        self._settings = context.services.settings.tools
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._quiet = quiet
        self._say = say
        self._said = 0

    def reply_ended(self, reply: Reply) -> None:
        """Start the timer of the phrase, if the reply has called tools and has said nothing."""
        enabled = not self._closed and bool(self._settings.lead_in_after_ms and self._settings.lead_ins)
        if enabled and reply.response.calls and reply.plan.events.spoken and not reply.audio_ms:
            self._stop()
            delay_s = self._settings.lead_in_after_ms / 1000
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._due, reply)

    def close(self) -> None:
        """Say nothing any more, because the session ends."""
        self._closed = True
        self._stop()

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _due(self, reply: Reply) -> None:
        waiting = {str(item.call["call_id"]) for item in reply.response.calls} & self._context.conversation.open_calls
        if waiting and self._quiet(reply):
            phrases = self._settings.lead_ins
            self._said += 1
            self._say(phrases[(self._said - 1) % len(phrases)])


class FollowUp:
    """Starts the reply to the results of tools that this system has called.

    The results of the client's tools are the client's business: while one is missing, its response.create is awaited.
    No reply is started if the caller speaks, or if another reply has begun since the one that called: the results are
    a part of the conversation, and the next reply has them.

    A client that forces a call forces one: replies to results may call tools, but need not. After MOST_IN_A_ROW of them
    the next one has to speak, so that a model that always calls does not go on for ever.
    """

    def __init__(
        self, context: SessionContext, quiet: Callable[[Reply], bool], answer: Callable[[ToolMode], Reply | None]
    ) -> None:
        """Create the follow-ups of a session.

        Args:
            context: Conversation and tools of the session.
            quiet: Returns True if nobody speaks and the given reply is still the newest.
            answer: Starts a reply that may call tools ("auto") or must not ("none"), and returns it.
        """
        self._conversation = context.conversation
        self._quiet = quiet
        self._answer = answer
        self._after: Reply | None = None
        self._calls: frozenset[str] = frozenset()
        self._started: Reply | None = None
        self._in_a_row = 0
        context.server_tools.finished = self.stepped

    def reply_ended(self, reply: Reply) -> None:
        """Note a reply that has ended. A lead-in takes the place of the reply before it."""
        if reply is not self._started and not reply.plan.terms.request.lead_in:
            self._in_a_row = 0
        called = any(item.type == "mcp_call" for item in reply.response.calls)
        if called:
            self._after = reply
            self._calls = frozenset(str(item.call["call_id"]) for item in reply.response.calls)
        elif self._after and reply.plan.terms.request.lead_in:
            self._after = reply
        elif self._after is not reply:
            self._after = None

    def stepped(self) -> None:
        """Start the reply if all results are there and nobody speaks. Called after every event of the session."""
        reply = self._after
        if reply is None or self._calls & self._conversation.open_calls or not self._quiet(reply):
            return
        self._after = None
        self._in_a_row += 1
        self._started = self._answer("none" if self._in_a_row > MOST_IN_A_ROW else "auto")
