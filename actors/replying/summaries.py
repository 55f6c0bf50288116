"""Summaries of the turns that leave the prompt, made in the background.

A summary is requested when a reply has been heard, before the turn that needs it, unless the host is busy with
replies. The caller's speech cancels the request, because the language model must answer first. The request is repeated
after the next reply. Until then the turns stay in the prompt (`rejoinder/core/reply/prompt_window.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.stages.ports import LlmRequest
from actors.stages.retry import contained
from actors.stages.services import Services
from rejoinder.core.errors import BackendError, Overloaded, RejoinderError
from rejoinder.core.reply.prompt_window import NOTHING, ChatMessage, ConversationSummary, PromptWindow, request_summary
from rejoinder.core.reply.spoken.hidden import visible_text

# Maximum number of tokens per word of a summary. English rarely needs more; a longer summary is cut off.
TOKENS_A_WORD = 2


class Summaries:
    """Summaries of one session. Call `prepare` when a reply was heard, and `withdraw` when the caller speaks.

    Attributes:
        window: Chooses the turns that are in the prompt.
        newest: The last summary that was made; NOTHING before the first.
    """

    def __init__(self, services: Services, group: asyncio.TaskGroup) -> None:
        settings = services.settings.conversation
        self._services = services
        self._group = group
        self._words = settings.summary_words
        self._task: asyncio.Task[None] | None = None
        self.window = PromptWindow(settings.context_turns, settings.context_drop_turns, summarized=self._words > 0)
        self.newest = NOTHING

    def prepare(self, turns: Sequence[ChatMessage]) -> None:
        """Start a summary of the turns that leave the prompt with the next turn, unless the host is busy.

        `turns` are the messages of the whole conversation. If no turn leaves, nothing is started.
        """
        speculation = self._services.settings.speculation
        leaving = self.window.leaving(turns, self.newest)
        if leaving and self._services.draft_budget.thinking < speculation.max_concurrent:
            self.withdraw()
            self._task = self._group.create_task(self._summarize(leaving))

    def withdraw(self) -> None:
        """Cancel a summary that is under way, because the caller speaks. This stops the engine."""
        if self._task:
            self._task.cancel()
            self._task = None

    async def _summarize(self, leaving: tuple[ChatMessage, ...]) -> None:
        messages = request_summary(leaving, self.newest, self._words)
        request = LlmRequest(messages, max_tokens=TOKENS_A_WORD * self._words)
        with contained("llm", self._services.metrics):
            try:
                async with (
                    asyncio.timeout(self._services.settings.conversation.give_up_after_s),
                    self._services.stages.llm.open(request) as stream,
                ):
                    parts = [delta.text async for delta in stream]
            except (BackendError, Overloaded, TimeoutError):
                self._services.metrics.error("backend", "llm_summary")
            except RejoinderError:
                return  # the turns are longer than the model's context
            else:
                self.newest = ConversationSummary(visible_text("".join(parts)).strip(), leaving)
