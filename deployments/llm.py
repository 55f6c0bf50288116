"""The Llm deployment: it serves one language model engine through one protocol, `LlmEngine`.

A request is a prompt, and the answer is a cancellable stream of coalesced token deltas.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Protocol

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from deployments.engines.device import open_device
from deployments.engines.emulated import EmulatedLlm
from deployments.engines.llm.llama_cpp import ALL_LAYERS, LlamaCpp, LlamaCppOptions, gguf_file, weights_on_gpu
from deployments.engines.llm.vllm import Vllm, VllmMetrics
from deployments.serving.placements import ReplicaRoute
from deployments.serving.replica import Replica, StageDeployment, replica_id
from rejoinder.core.errors import ConfigError
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.resilience.stream_report import StreamReport, StreamWatch
from rejoinder.core.settings.settings import Settings
from rejoinder.store import ConversionForm, open_store


class LlmEngine(Protocol):
    """Protocol of the language model engines that the Llm deployment can run."""

    @property
    def name(self) -> str:
        """The engine and its model, for reports."""
        ...

    @property
    def prefills(self) -> bool:
        """True if the engine can compute a prompt's state (its KV cache) before the answer is requested."""
        ...

    def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta, None]:
        """Yield the answer as text deltas. The last delta has the finish reason and the token usage.

        Closing the generator stops the engine at its next token and frees the slot. It may raise CallerError (the
        prompt is too long), Overloaded (the queue is full) or BackendError (the engine failed).
        """
        ...

    async def check_health(self) -> None:
        """Raise BackendError if the engine cannot serve."""
        ...


def open_engine(settings: Settings) -> LlmEngine:
    """Return the engine that `settings.llm` names, with its model loaded.

    Raises:
        ConfigError: If an OpenAI-compatible server is configured that is not on this machine, and its API key is not in
            the environment.
    """
    stage = settings.llm
    if stage.engine == "emulated":
        return EmulatedLlm(settings, replica_id("llm"))
    if stage.engine == "openai_api":
        key = os.environ.get(stage.api_key_env, "")
        if not key and not stage.base_url.startswith(("http://127.", "http://localhost")):
            raise ConfigError(
                f"the environment variable {stage.api_key_env} is empty.",
                "Set it on every node, or name another one.",
                field="args.llm.api_key_env",
            )
        # Imported here, because the import takes half a second, which other engines need not spend.
        from deployments.engines.llm.openai_api import OpenAiApi

        return OpenAiApi(stage.base_url, stage.model, key or "none", stage.coalesce_ms, cache_hint=stage.cache_hint)
    if stage.engine == "vllm":
        return Vllm(_transformers_model(settings), stage)
    return _llama_cpp(settings)


def slots_of(settings: Settings) -> int:
    """Return how many answers one replica of the configured engine writes at once; 0 if it is not known."""
    stage = settings.llm
    if stage.engine == "emulated":
        return stage.emulation.resolve("llm").slots
    if stage.engine == "openai_api":
        return 0
    return stage.vllm.places(on_gpu=stage.on_gpu) if stage.engine == "vllm" else stage.slots


def _llama_cpp(settings: Settings) -> LlamaCpp:
    stage = settings.llm
    file = gguf_file(open_store(settings.models).path(stage.model))
    layers = (stage.gpu_layers or ALL_LAYERS) if stage.on_gpu else 0
    open_device("llm", stage, {"llama.cpp": weights_on_gpu(file, layers)})
    options = LlamaCppOptions(
        model=stage.model,
        threads=stage.threads,
        slots=stage.slots,
        max_queue=stage.max_queue,
        coalesce_ms=stage.coalesce_ms,
        no_repeat_ngram=stage.blocked_ngram,
        reuse=stage.reuse_state,
        gpu_layers=layers,
        chained_calls=stage.chained_calls,
    )
    return LlamaCpp(file, options)


def _transformers_model(settings: Settings) -> str:
    """Return the model argument for vLLM: a folder's path, a Hugging Face repository's name, or a path in the store."""
    model = settings.llm.model
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    return model if "/" in model else str(open_store(settings.models).converted(model, ConversionForm.HF))


class Llm(StageDeployment):
    """Ray Serve deployment of one language model engine."""

    def __init__(self, settings: Settings) -> None:
        os.nice(settings.llm.nice)  # before the engine starts its threads, because threads inherit the nice value
        self._engine = open_engine(settings)
        self._replica = Replica("llm", self._engine.name, settings.llm, slots=slots_of(settings))
        if isinstance(self._engine, Vllm):
            self._replica.expose(VllmMetrics())
        self._instructions = settings.conversation.instructions
        self._warm = False
        self._streams = StreamWatch()

    async def generate(
        self, request: LlmRequest, route: ReplicaRoute | None = None
    ) -> AsyncGenerator[TokenDelta, None]:
        """Yield the answer as text deltas. Cancelling stops the engine at its next token.

        A prefill request to an engine without prefill returns at once with one empty delta. `route` is for the router
        in the calling process. If it names a host, the first delta has the replica's load.
        """
        if request.prefill and not self._engine.prefills:
            yield TokenDelta("", 0, "stop", LlmUsage(0, 0))
            return
        async with (
            self._replica.request(route, essential=request.for_call and not request.prefill) as tracked,
            aclosing(self._engine.stream(request)) as deltas,
            self._watched() as token,
        ):
            first = True
            async for delta in deltas:
                token()
                tracked.produced(delta.tokens)
                if delta.finish:
                    tracked.answered()
                if delta.usage and delta.usage.queue_s is not None:
                    tracked.waited(delta.usage.queue_s)
                yield self._replica.with_load(delta, route if first else None)
                first = False

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[Callable[[], None]]:
        """Watch one stream. Yield the function to call for each of its deltas."""
        stream = self._streams.opened(time.monotonic())
        try:
            yield lambda: self._streams.token(stream, time.monotonic())
        finally:
            self._streams.closed(stream)

    async def report(self, idle_s: float, route: ReplicaRoute | None = None) -> StreamReport:
        """Return the report on the streams that have waited for at least `idle_s` seconds.

        `route` is for the router in the calling process.
        """
        return self._streams.report(idle_s, time.monotonic())

    async def check_health(self) -> None:
        """Raise BackendError if the replica or the engine cannot serve. The first check warms the engine up."""
        await super().check_health()
        if not self._warm:
            await self._warm_up()
        await self._engine.check_health()

    async def _warm_up(self) -> None:
        """Generate a short answer with the configured instructions, so that their KV cache is computed early."""
        request = LlmRequest((ChatMessage("system", self._instructions), ChatMessage("user", "Hello")), max_tokens=2)
        async with aclosing(self._engine.stream(request)) as deltas:
            async for _ in deltas:
                self._warm = True
