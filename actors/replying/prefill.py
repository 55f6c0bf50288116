"""Prefill: the language model computes the KV cache of a prompt before its answer is needed.

One prefill of a session is under way at a time. Of the prompts that wait, only the newest is prefilled. No reply waits
for a prefill. A prefill helps only if the same replica answers the turn, so the router prefers the replica that served
the conversation before (`deployments/serving/router.py`).
"""

from __future__ import annotations

import asyncio

from actors.stages.ports import LlmRequest
from actors.stages.retry import contained
from actors.stages.services import Services
from rejoinder.core.errors import BackendError, Overloaded, RejoinderError
from rejoinder.core.reply.prompt_window import ChatMessage


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
                        asyncio.timeout(self._services.settings.llm.call_timeout_s),
                        self._services.stages.llm.open(request) as stream,
                    ):
                        async for _ in stream:
                            pass
                except (BackendError, Overloaded, TimeoutError):
                    self._services.metrics.error("backend", "llm_prefill")
                except RejoinderError:
                    return  # the prompt is too long: the reply will report that
