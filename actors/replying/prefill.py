"""Prefill: the language model computes the KV cache of a prompt before its answer is needed.

One prefill of a session is under way at a time. Of the prompts that wait, only the newest is prefilled. No reply waits
for a prefill. A prefill helps only if the same replica answers the turn, so the router prefers the replica that served
the conversation before (`deployments/serving/router.py`).
"""

from __future__ import annotations

import asyncio
import logging

from actors.stages.ports import LlmRequest, LlmUsage
from actors.stages.retry import contained
from actors.stages.services import Services
from rejoinder.core.errors import BackendError, Overloaded, RejoinderError
from rejoinder.core.reply.prompt_window import ChatMessage

logger = logging.getLogger(__name__)

# Timeout of a prefill in seconds. It is longer than that of an answer: long instructions take seconds, and a prefill
# that is cancelled leaves nothing, so the caller's first turn would pay for all of it.
LONGEST_S = 60.0
# Seconds from which the prefill of instructions is worth a warning: a caller may well speak before it has ended.
SLOW_S = 1.0


class Prefill:
    """Prefills of one session."""

    def __init__(self, services: Services, group: asyncio.TaskGroup, session: str) -> None:
        self._services = services
        self._group = group
        self._session = session
        self._next: LlmRequest | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, messages: tuple[ChatMessage, ...], *, whole: bool = False) -> None:
        """Start to prefill a prompt, unless the host is busy with replies or the engine does not support it.

        Args:
            messages: The prompt.
            whole: True if the last message is complete; False if more words may follow.
        """
        settings = self._services.settings
        if not settings.llm.supports_prefill or not messages:
            return
        if self._services.draft_budget.thinking >= settings.speculation.max_concurrent:
            return
        self._next = LlmRequest(messages, max_tokens=0, session=self._session, prefill=True, whole=whole)
        if self._task is None or self._task.done():
            self._task = self._group.create_task(self._run())

    async def _run(self) -> None:
        """Prefill the newest prompt, and repeat until there is no newer one. Cancelling stops the engine."""
        with contained("llm", self._services.metrics):
            while self._next is not None:
                request, self._next = self._next, None
                try:
                    async with (
                        asyncio.timeout(LONGEST_S),
                        self._services.stages.llm.open(request) as stream,
                    ):
                        began = self._services.clock()
                        async for delta in stream:
                            if delta.usage:
                                self._log_instructions(request, delta.usage, self._services.clock() - began)
                except (BackendError, Overloaded, TimeoutError):
                    self._services.metrics.error("backend", "llm_prefill")
                except RejoinderError:
                    return  # the prompt is too long: the reply will report that

    def _log_instructions(self, request: LlmRequest, usage: LlmUsage, seconds: float) -> None:
        """Log what a session's instructions cost, if the prompt has nothing else and something was computed."""
        computed = usage.prompt_tokens - usage.cached_tokens
        if len(request.messages) > 1 or computed <= 0:
            return
        logger.log(
            logging.WARNING if seconds >= SLOW_S else logging.INFO,
            "the instructions of %s (%d characters, %d tokens, %d of them cached) were prefilled in %.0f ms",
            self._session,
            len(request.messages[0].content),
            usage.prompt_tokens,
            usage.cached_tokens,
            seconds * 1000,
        )
