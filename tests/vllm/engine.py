"""Helpers of vLLM's tests: settings for two cores, requests, and vLLM's own metrics."""

from __future__ import annotations

from contextlib import aclosing

from prometheus_client.parser import text_string_to_metric_families

from actors.stages.ports import LlmRequest, TokenDelta
from deployments.engines.llm.vllm import Vllm
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import LlmSettings, VllmSettings

MODEL = "smollm2-135m-instruct"
STORY = "Tell me a very long story about a lighthouse keeper."
# Longer than two blocks of vLLM's prefix cache, which stores whole blocks only and so ignores a short prompt.
INSTRUCTIONS = "You are a friendly voice assistant. Answer in one or two short sentences, and never make a list. " * 4
PLACES = 4
SETTINGS = VllmSettings(max_num_seqs=PLACES, max_model_len=1024, cpu_kv_cache_gb=0.5)
STAGE = LlmSettings(engine="vllm", model=MODEL, max_queue=4, coalesce_ms=0, vllm=SETTINGS)


def ask(question: str, max_tokens: int = 24, prefix: str = "") -> LlmRequest:
    messages = (ChatMessage("system", INSTRUCTIONS), ChatMessage("user", question))
    return LlmRequest(messages, max_tokens=max_tokens, prefix=prefix)


async def answer(llm: Vllm, request: LlmRequest) -> list[TokenDelta]:
    async with aclosing(llm.stream(request)) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[TokenDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def scheduler(page: str) -> dict[str, float]:
    """Return vLLM's metrics of a Prometheus page, by name without the prefix `vllm:`.

    `page` is the page's text. Histogram buckets and creation times are left out. There must be only one engine.
    """
    return {
        sample.name.removeprefix("vllm:"): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("vllm:") and not sample.name.endswith(("_bucket", "_created"))
    }
