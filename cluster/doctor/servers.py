"""Whether the OpenAI-compatible servers of a configuration answer, so that a wrong key or address is found at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

from actors.stages.ports import LlmRequest
from deployments.llm import open_engine
from rejoinder.core.errors import BackendError, ConfigError, RejoinderError
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import Settings

ANSWER_S = 20.0
"""Seconds that a server has to begin an answer."""


def server_faults(settings: Settings, *, keys_here: bool) -> Iterator[tuple[str, RejoinderError | None]]:
    """Ask each OpenAI-compatible server of these settings for two tokens.

    Yield the setting with its address and the error; None if it answers.

    Args:
        settings: The settings to serve.
        keys_here: False if the API keys may be set on other machines only. Servers whose key is not set here are then
            left out.
    """
    for section, stage in (("llm", settings.llm), ("llm_backup", settings.llm_backup)):
        if stage is None or stage.engine != "openai_api":
            continue
        field = f"args.{section}.base_url"
        try:
            asyncio.run(_ask(settings.model_copy(update={"llm": stage})))
        except ConfigError as error:
            if keys_here or not error.field.endswith("api_key_env") or "empty" not in error.message:
                yield field, error
        except RejoinderError as error:
            yield field, error
        else:
            yield field, None


async def _ask(settings: Settings) -> None:
    request = LlmRequest((ChatMessage("user", "Hello"),), max_tokens=2)
    try:
        async with asyncio.timeout(ANSWER_S), aclosing(open_engine(settings).stream(request)) as deltas:
            async for _ in deltas:
                return
    except TimeoutError as error:
        raise BackendError(
            f"{settings.llm.base_url} does not answer within {ANSWER_S:.0f} s.", "Check the server.", stage="llm"
        ) from error
