"""Prefill: the language model computes the KV cache of a prompt before its answer is needed.

One prefill of a session is under way at a time. Of the prompts that wait, only the newest is prefilled. No reply waits
for a prefill. A prefill helps only if the same replica answers the turn, so the router prefers the replica that served
the conversation before (`deployments/serving/router.py`).

If the words may be the whole message, their prefill also tells the probability that the message is complete
(`LlmRequest.judge_end`). It is kept for the newest prompts. So after words that were prefilled while the caller still
spoke, it is known at the end of speech without another request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from actors.stages.ports import LlmRequest, LlmUsage
from actors.stages.retry import contained
from actors.stages.services import Services
from rejoinder.core.errors import BackendError, Overloaded, RejoinderError
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import NO_TOOLS, ToolOffer
from rejoinder.core.turns.transcript_ending import bare_words

logger = logging.getLogger(__name__)

# Timeout of a prefill in seconds. It is longer than that of an answer: long instructions take seconds, and a prefill
# that is cancelled leaves nothing, so the caller's first turn would pay for all of it.
LONGEST_S = 60.0
# Seconds from which the prefill of instructions is worth a warning: a caller may well speak before it has ended.
SLOW_S = 1.0
# Number of prompts for which the probability that the caller's message ends there is kept. They are the prompts of the
# newest interim transcripts and of the final one.
KEPT_ENDS = 4
# Longest wait, in seconds, of a speculative reply until it is known how probably the caller's message is complete.
END_FIRST_S = 0.15

Prompt = tuple[ChatMessage, ...]


class Prefill:
    """Prefills of one session."""

    def __init__(
        self,
        services: Services,
        group: asyncio.TaskGroup,
        session: str,
        offer: Callable[[], ToolOffer] = lambda: NO_TOOLS,
    ) -> None:
        """Create the prefills of a session. `offer` returns the tools of its next reply, a part of its prompt."""
        self._offer = offer
        self._services = services
        self._group = group
        self._session = session
        self._next: LlmRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._ends: dict[Prompt, asyncio.Future[float | None]] = {}

    def start(self, messages: Prompt, *, whole: bool = False) -> None:
        """Start to prefill a prompt, unless the host is busy with replies or the engine does not support it.

        Args:
            messages: The prompt.
            whole: True if the last message is complete; False if more words may follow.
        """
        settings = self._services.settings
        if not settings.llm.supports_prefill or not messages:
            return
        if self._busy:
            return
        if whole and self._judges and messages[-1].role == "user":
            self._judged(_without_end_marks(messages))
            return
        self._enqueue(
            LlmRequest(messages, max_tokens=0, session=self._session, prefill=True, whole=whole, tools=self._offer())
        )

    async def message_end(self, messages: Prompt) -> float | None:
        """Return the probability that the last message of a prompt is complete; None if it is not known.

        It is not known if the engine cannot tell, or while the host is busy with replies. A prompt that was not
        prefilled before is prefilled. Cancelling the wait leaves the prefill running.

        Args:
            messages: The prompt. Punctuation at its end is ignored.
        """
        if not messages or not self._judges or self._busy:
            return None
        return await asyncio.shield(self._judged(_without_end_marks(messages)))

    async def wait_for_end(self, messages: Prompt) -> None:
        """Wait until it is known how probably the prompt's last message is complete, but at most END_FIRST_S.

        A speculative reply calls this before it sends the prompt. The turn's verdict needs the probability, and the
        engine cannot compute it while it generates the answer. The wait costs little, because the answer needs the
        same KV cache.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(END_FIRST_S):
                await self.message_end(messages)

    @property
    def _busy(self) -> bool:
        """True if as many replies of the host wait for the language model as `speculation.max_concurrent`.

        Then nothing is computed ahead.
        """
        return self._services.draft_budget.thinking >= self._services.settings.speculation.max_concurrent

    @property
    def _judges(self) -> bool:
        settings = self._services.settings
        return settings.endpointing.message_end and settings.llm.judges_message_end

    def _judged(self, messages: Prompt) -> asyncio.Future[float | None]:
        """Return the future of the probability that a prompt's last message is complete.

        The probability is requested if it was not requested before.
        """
        if (known := self._ends.get(messages)) is not None:
            return known
        self._ends[messages] = future = asyncio.get_running_loop().create_future()
        while len(self._ends) > KEPT_ENDS:
            forgotten = self._ends.pop(next(iter(self._ends)))
            if not forgotten.done():
                forgotten.set_result(None)
        self._enqueue(
            LlmRequest(
                messages, max_tokens=0, session=self._session, prefill=True, judge_end=True, tools=self._offer()
            ),
            priority=True,
        )
        return future

    def _enqueue(self, request: LlmRequest, *, priority: bool = False) -> None:
        """Queue a prefill after the one under way. It replaces a queued one.

        A queued prefill that a verdict needs (`judge_end`) is replaced only with `priority`.
        """
        replaced, waiting = self._next, self._next is not None and self._next.judge_end
        if waiting and not priority:
            return
        if replaced is not None:
            self._end_known(replaced, None)
        self._next = request
        if self._task is None or self._task.done():
            self._task = self._group.create_task(self._run())

    def _end_known(self, request: LlmRequest, probability: float | None) -> None:
        """Settle the future of the probability that a prompt's last message is complete.

        If the probability is None (not known), it may be requested again.
        """
        if not request.judge_end:
            return
        future = self._ends.get(request.messages)
        if future is not None and not future.done():
            future.set_result(probability)
        if probability is None:
            self._ends.pop(request.messages, None)

    async def _run(self) -> None:
        """Prefill the newest prompt, and repeat until there is no newer one. Cancelling stops the engine."""
        with contained("llm", self._services.metrics):
            while self._next is not None:
                request, self._next = self._next, None
                found: float | None = None
                try:
                    async with (
                        asyncio.timeout(LONGEST_S),
                        self._services.stages.llm.open(request) as stream,
                    ):
                        began = self._services.clock()
                        async for delta in stream:
                            if delta.usage:
                                found = delta.usage.end_probability
                                self._log_instructions(request, delta.usage, self._services.clock() - began)
                except (BackendError, Overloaded, TimeoutError):
                    self._services.metrics.error("backend", "llm_prefill")
                except RejoinderError:
                    pass  # the prompt is too long: the reply will report that
                finally:
                    self._end_known(request, found)

    def _log_instructions(self, request: LlmRequest, usage: LlmUsage, seconds: float) -> None:
        """Log tokens and duration (`seconds`) of a prefill whose prompt has only the session's instructions.

        Nothing is logged if all tokens came from the KV cache.
        """
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


def _without_end_marks(messages: Prompt) -> Prompt:
    """Return a prompt without the punctuation at its end, which the recognizer invented."""
    *before, last = messages
    return (*before, replace(last, content=bare_words(last.content)))
