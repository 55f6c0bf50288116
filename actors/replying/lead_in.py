"""Spoken lead-in: a short phrase that is said while a tool of the client runs for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.replying.reply import Reply
from actors.stages.session_context import SessionContext


class LeadIn:
    """Phrase that the caller hears while the client runs a tool, once for each reply that calls tools and says nothing.

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
        """Start the timer of the phrase, if the reply has called tools of the client and has said nothing."""
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
