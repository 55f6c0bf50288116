"""Answers that begin before they are known: a held opening is spoken at once, and the model goes on behind it.

The opening is the beginning of the answer: it is in the history as far as it was heard, and the model is given it as
its own first words (`LlmRequest.prefix`), so that it neither repeats nor contradicts them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from actors.stages.hedged_llm import GenerationStats
from actors.stages.ports import LlmRequest, TokenDelta
from actors.stages.retry import StageFailures
from actors.stages.services import Services
from rejoinder.core.reply.openings import opening_for
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.openings import Opening
from rejoinder.core.wire.server import ResponseEvents

# A continuation that begins with one of these belongs to the word before it.
CLOSING = frozenset(".,;:!?)'\"\u2019\u201d\u2026")


def opening_of(events: ResponseEvents, prompt: tuple[ChatMessage, ...], openings: tuple[Opening, ...]) -> str:
    """How the answer to this prompt is to begin; "" for one in writing or outside the conversation: nobody waits for
    its first sound.
    """
    return opening_for(openings, prompt) if events.spoken and events.conversation_id else ""


async def stream_after_opening(
    opening: str, services: Services, request: LlmRequest, failures: StageFailures, *, stats: GenerationStats
) -> AsyncGenerator[TokenDelta, None]:
    """The opening as one delta of its own, then what the model says behind it. Close it to stop.

    A model that takes the opening for the whole answer is asked again without it.
    """
    stream, give_up_s = services.hedger.stream, services.settings.conversation.give_up_after_s
    if not opening:
        async with aclosing(stream(request, failures, stats, give_up_s)) as deltas:
            async for delta in deltas:
                yield delta
        return
    stats.opened = True
    yield TokenDelta(opening, 0)
    for prefix in (opening, ""):
        generated = ""
        async with aclosing(stream(replace(request, prefix=prefix), failures, stats, give_up_s)) as deltas:
            async for delta in deltas:
                space = "" if generated or _needs_no_space(delta.text) else " "
                generated += delta.text
                if not generated.strip() and prefix and delta.finish:
                    break
                yield replace(delta, text=space + delta.text)
        if generated.strip():
            return


def _needs_no_space(text: str) -> bool:
    """Whether it needs no space before it."""
    return not text or text[0].isspace() or text[0] in CLOSING
