"""The embedded language model: a small decoder on the CPU through CTranslate2, streamed and cancellable.

One generation runs at a time, in the engine's own thread; on a CPU decoding is bound by memory bandwidth, so a second
one would only slow the first. Others wait in arrival order, at most `max_queue` of them. The protocol is that of
vLLM's AsyncLLM as our port sees it: messages in, coalesced token deltas out, usage with the last, and closing the
generator stops the engine at its next token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ctranslate2

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from deployments.engines.llm.chat_template import ChatTokenizer
from deployments.engines.llm.delta_writer import DeltaWriter, TokenWriter
from deployments.engines.llm.thread_stream import thread_stream
from rejoinder.core.errors import CallerError, ModelError, Overloaded
from rejoinder.core.reply.prompt_window import ChatMessage

_WARM_UP = (ChatMessage("user", "Say hello."),)
_WARM_UP_TOKENS = 4
# Sampling at a temperature above 0 considers this many candidates: wide enough to vary, narrow enough to stay sane.
_SAMPLING_TOP_K = 50


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """`instructions` is the system prompt most requests share: its state is computed once and reused.

    That saves about a third of the first token's time. It is one prompt, never the caller's: CTranslate2 keeps every
    static prompt it ever saw (15 MB each for 100 tokens of SmolLM2). `context_tokens`: SmolLM2's trained length.
    """

    model: str = "smollm2-135m-instruct"
    threads: int = 2
    compute_type: Literal["int8", "float32"] = "int8"
    max_queue: int = 16
    coalesce_ms: float = 15.0
    context_tokens: int = 8192
    no_repeat_ngram: int = 0
    instructions: str = ""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """`tokens` follow the shared `prefix`, which is empty if the request does not begin with it."""

    prefix: tuple[str, ...]
    tokens: list[str]

    @property
    def length(self) -> int:
        return len(self.prefix) + len(self.tokens)


class EmbeddedLlm:
    """One model in memory. Not thread-safe: call it from one event loop."""

    prefills = False

    def __init__(self, directory: Path, options: EmbeddedOptions = EmbeddedOptions()) -> None:
        """`directory`: a CTranslate2 model with its tokenizer.json and chat template; raises ModelError otherwise."""
        self.name = f"{options.model} {options.compute_type} (ctranslate2)"
        self._options = options
        self._chat = ChatTokenizer(directory)
        try:
            self._generator = ctranslate2.Generator(
                str(directory), device="cpu", compute_type=options.compute_type, intra_threads=options.threads
            )
        except (RuntimeError, ValueError) as error:
            remedy = "Run `rejoinder models pull`, which also converts it."
            raise ModelError("is no CTranslate2 model.", remedy, file=str(directory), found=str(error)) from error
        shared = [ChatMessage("system", options.instructions)] if options.instructions else []
        self._prefix = tuple(self._chat.encode(shared, answer=None)) if shared else ()
        self._slot = asyncio.Semaphore(1)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-llm")
        self._active = 0

    @property
    def active(self) -> int:
        """Requests being generated or waiting; 0 when the engine is idle."""
        return self._active

    def warm_up(self) -> None:
        """Generate a few tokens, which also computes the state of the shared instructions."""
        system = (ChatMessage("system", self._options.instructions),) if self._prefix else ()
        request = LlmRequest(system + _WARM_UP, max_tokens=_WARM_UP_TOKENS)
        self._run(request, self._prompt(request))

    async def check_health(self) -> None:
        """The engine lives in this process; a generation that hangs is the replica's deadline to notice."""

    def close(self) -> None:
        """Give the thread back; no stream may be running."""
        self._thread.shutdown()

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta]:
        """Generate an answer: the first token at once, later ones coalesced, usage with the last delta.

        Raises Overloaded if `max_queue` requests wait already, CallerError if the prompt leaves no room for an answer,
        BackendError if the engine fails. Closing or cancelling takes a waiting request out of the queue at once, and
        stops a running one at its next token; it returns when the slot is free.
        """
        prompt = self._prompt(request)
        room = self._options.context_tokens - prompt.length
        if room < 1:
            message = f"the conversation takes {prompt.length} tokens of {self._options.context_tokens}."
            raise CallerError(message, "Shorten the instructions or the messages.", code="context_length_exceeded")
        if self._active > self._options.max_queue:
            message = f"{self._active} requests are running or waiting."
            raise Overloaded(message, "Retry, or add an llm replica.", resource="llm.max_queue")
        self._active += 1
        arrived = time.monotonic()
        try:
            async with self._slot:
                queue_s = time.monotonic() - arrived
                async with aclosing(self._generate(request, prompt, queue_s)) as deltas:
                    async for delta in deltas:
                        yield delta
        finally:
            self._active -= 1

    def _generate(self, request: LlmRequest, prompt: _Prompt, queue_s: float) -> AsyncGenerator[TokenDelta]:
        def decode(writer: DeltaWriter) -> tuple[Literal["stop", "length"], LlmUsage]:
            tokens = TokenWriter(self._chat.new_decoder(), writer)
            self._run(request, prompt, tokens.on_token)
            return tokens.finish, LlmUsage(prompt.length, writer.tokens, len(prompt.prefix), queue_s)

        return thread_stream(self._thread, decode, self._options.coalesce_ms / 1000)

    def _run(self, request: LlmRequest, prompt: _Prompt, on_token: Callable[[Any], bool] | None = None) -> None:
        """Decode to the end, in this thread; `on_token` returning True stops it."""
        greedy = request.temperature == 0
        room = self._options.context_tokens - prompt.length
        self._generator.generate_batch(
            [prompt.tokens],
            static_prompt=list(prompt.prefix) or None,
            cache_static_prompt=True,
            include_prompt_in_result=False,
            end_token=self._chat.end_tokens,
            max_length=min(request.max_tokens, room),
            no_repeat_ngram_size=self._options.no_repeat_ngram,
            sampling_topk=1 if greedy else _SAMPLING_TOP_K,
            sampling_temperature=1.0 if greedy else request.temperature,
            callback=on_token,
        )

    def _prompt(self, request: LlmRequest) -> _Prompt:
        tokens = self._chat.encode(request.messages, answer=request.prefix)
        shared = len(self._prefix)
        if shared and tuple(tokens[:shared]) == self._prefix:
            return _Prompt(self._prefix, tokens[shared:])
        return _Prompt((), tokens)
