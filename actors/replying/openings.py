"""Openings: beginnings of answers. An opening is played from a prepared clip at once; the language model continues it.

The opening is part of the answer. The conversation keeps it as far as it was heard. The language model gets it as the
first words of its answer (`LlmRequest.prefix`), so it neither repeats nor contradicts them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from actors.stages.hedged_llm import GenerationStats
from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from actors.stages.retry import StageFailures
from actors.stages.services import Services
from rejoinder.core.reply.answer_cache import CacheScope
from rejoinder.core.reply.openings import opening_for
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.openings import Opening
from rejoinder.core.survival.resumption import KnownAnswer
from rejoinder.core.wire.server import ResponseEvents

# If the language model's text after an opening begins with one of these characters, no space is put between the two.
CLOSING = frozenset(".,;:!?)'\"\u2019\u201d\u2026")


def opening_of(events: ResponseEvents, prompt: tuple[ChatMessage, ...], openings: tuple[Opening, ...]) -> str:
    """Return the opening of the answer to a prompt, out of the configured `openings`; "" for none.

    Replies in text or outside the conversation have none, because no listener waits for their first sound. `events`
    makes the wire events of the reply, and so knows whether it is spoken and part of the conversation.
    """
    return opening_for(openings, prompt) if events.spoken and events.conversation_id else ""


def answer_stream(
    request: LlmRequest,
    services: Services,
    failures: StageFailures,
    stats: GenerationStats,
    *,
    opening: str,
    known: KnownAnswer | None,
    scope: CacheScope,
) -> AsyncGenerator[TokenDelta, None]:
    """Return the deltas of an answer: the rest of a known one, a stored one, or one of the language model.

    Args:
        request: The request for the whole answer.
        services: The hedger, the answer cache and the settings are used.
        failures: Records failures and recovery of the language model.
        stats: Filled in while the generation runs.
        opening: The opening; "" for none.
        known: The beginning of an answer that was cut off; None otherwise.
        scope: Which stored answers may be used. None is used if the model must call a tool.
    """
    if known:
        return stream_after_known(known, services, request, failures, stats=stats)
    ask = partial(stream_after_opening, opening, services, request, failures, stats=stats)
    return ask() if request.tools.forced else services.answer_cache.stream(request, scope, stats, ask)


async def stream_after_opening(
    opening: str, services: Services, request: LlmRequest, failures: StageFailures, *, stats: GenerationStats
) -> AsyncGenerator[TokenDelta, None]:
    """Yield the opening as one delta, then the deltas of the language model. Close the generator to stop.

    If the model adds nothing to the opening, the request is repeated without it.

    Args:
        opening: The opening; "" for none.
        services: The hedger and the settings are used.
        request: The request for the whole answer.
        failures: Records failures and recovery of the language model.
        stats: Filled in while the generation runs.

    Raises:
        BackendError: All attempts failed for `give_up_after_s` seconds.
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


async def stream_after_known(
    known: KnownAnswer, services: Services, request: LlmRequest, failures: StageFailures, *, stats: GenerationStats
) -> AsyncGenerator[TokenDelta, None]:
    """Yield the rest of an answer that was cut off: the known words that were not heard, then what follows them.

    Close the generator to stop. The arguments are those of `stream_after_opening`.

    Args:
        known: The beginning of the answer.
        services: The hedger and the settings are used.
        request: The request for the whole answer.
        failures: Records failures and recovery of the language model.
        stats: Filled in while the generation runs.

    Raises:
        BackendError: All attempts failed for `give_up_after_s` seconds.
    """
    if known.complete:
        stats.finish, stats.usage = "stop", LlmUsage(0, 0)
        yield TokenDelta(known.unheard, 0, "stop", stats.usage)
        return
    if known.unheard:
        yield TokenDelta(known.unheard, 0)
    generated, give_up_s = "", services.settings.conversation.give_up_after_s
    rest = services.hedger.stream(replace(request, prefix=known.prefix), failures, stats, give_up_s)
    async with aclosing(rest) as deltas:
        async for delta in deltas:
            space = " " if known.unheard and not generated and not _needs_no_space(delta.text) else ""
            generated += delta.text
            yield replace(delta, text=space + delta.text)


def _needs_no_space(text: str) -> bool:
    """Return True if `text`, which follows the opening words, needs no space before it: it starts with punctuation."""
    return not text or text[0].isspace() or text[0] in CLOSING
