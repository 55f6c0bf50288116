"""The embedded language model through llama.cpp: GGUF weights as they are, several answers at once, states reused.

Decoding on a CPU is bound by the bytes of the weights, and four-bit weights are the fewest. llama.cpp keeps the state
(KV) of each slot's last conversation: the next prompt of it pays only for what is new. Answers decode together, one
token of each a step, at most `slots` of them; others wait in arrival order, at most `max_queue`.

The library (xllamacpp) is llama.cpp's own server inside this process, and opens its HTTP port whether it is wanted or
not: here on loopback, behind a key that nobody knows.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import xllamacpp

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from deployments.engines.llm.chat_template import ChatTemplate
from deployments.engines.llm.delta_writer import DeltaWriter
from deployments.engines.llm.thread_stream import thread_stream
from rejoinder.core.errors import BackendError, CallerError, ModelError, Overloaded

# States of conversations that lost their slot are kept in so much memory; a state of SmolLM2 is 23 KB a token.
KEPT_STATES_MB = 256
PATIENCE_S = 0.1
"""A request finds its session's state only in an idle slot. One that was cancelled, or reads ahead, leaves within a few
tokens, and then what is new of 250 tokens is read in 80 ms; in another slot all of them are, in 1,000."""
# DRY sampling that forbids: a penalty that no token survives.
_FORBIDDING = 1000.0
_TOO_LONG = "exceed_context_size_error"


@dataclass(frozen=True, slots=True)
class LlamaCppOptions:
    """`context_tokens` are shared by all slots. `no_repeat_ngram`: no run of so many tokens is said twice (0: off)."""

    model: str = "smollm2-135m-instruct"
    threads: int = 1
    slots: int = 4
    max_queue: int = 16
    coalesce_ms: float = 15.0
    context_tokens: int = 8192
    no_repeat_ngram: int = 0
    reuse: bool = True


class LlamaCpp:
    """One model in memory. Not thread-safe: call it from one event loop."""

    prefills = True

    def __init__(self, directory: Path, options: LlamaCppOptions = LlamaCppOptions()) -> None:
        """`directory` holds one GGUF file; raises ModelError otherwise."""
        file = next(directory.glob("*.gguf"), None)
        if file is None:
            raise ModelError("holds no GGUF file.", "Run `rejoinder models pull`.", file=str(directory))
        self.name = f"{options.model} {_quantization(file)} (llama.cpp)"
        self._options = options
        self._template = chat_template(file)
        try:
            self._server = xllamacpp.Server(parameters_of(file, options))
        except (RuntimeError, ValueError) as error:
            remedy = "Run `rejoinder models verify`."
            raise ModelError("is no model that llama.cpp reads.", remedy, file=str(file), found=str(error)) from error
        self._places = asyncio.Semaphore(options.slots)
        self._threads = ThreadPoolExecutor(options.slots, thread_name_prefix="llama-cpp")
        self._active = 0
        self._running: dict[str, set[asyncio.Future[None]]] = defaultdict(set)

    @property
    def active(self) -> int:
        """Requests being generated or waiting; 0 when the engine is idle."""
        return self._active

    async def check_health(self) -> None:
        """The engine lives in this process; a generation that hangs is the replica's deadline to notice."""

    def close(self) -> None:
        """Give the threads back; no stream may be running."""
        self._threads.shutdown()

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta]:
        """Generate an answer: the first token at once, later ones coalesced, usage with the last delta.

        Raises Overloaded if `max_queue` requests wait already, CallerError if the prompt leaves no room for an answer,
        BackendError if the engine fails. Closing or cancelling takes a waiting request out of the queue at once, and
        stops a running one at its next token; it returns when the place is free.
        """
        alone = await self._alone(request.session)
        if request.prefill and (self._places.locked() or not alone):
            yield TokenDelta("", 0, "stop", LlmUsage(0, 0))  # somebody waits for an answer: that goes first
            return
        if request.prefill and not request.whole:
            prompt = self._template.render_open(request.messages)
        else:
            prompt = self._template.render(request.messages, answer=request.prefix)
        if self._active >= self._options.max_queue + self._options.slots:
            message = f"{self._active} requests are running or waiting."
            raise Overloaded(message, "Retry, or add an llm replica.", resource="llm.max_queue")
        self._active += 1
        arrived = time.monotonic()
        try:
            with self._present(request.session):
                async with self._places:
                    queue_s = time.monotonic() - arrived
                    async with aclosing(self._generate(request, prompt, queue_s)) as deltas:
                        async for delta in deltas:
                            yield delta
        finally:
            self._active -= 1

    async def _alone(self, session: str) -> bool:
        """Wait for what else this session has under way, while that is worth it; False if there still is something."""
        if others := self._running.get(session):
            await asyncio.wait(others, timeout=PATIENCE_S)
        return not self._running.get(session)

    @contextmanager
    def _present(self, session: str) -> Iterator[None]:
        """Be one of those that `_alone` waits for; who has no session has no state to wait for."""
        if not session:
            yield
            return
        over = asyncio.get_running_loop().create_future()
        self._running[session].add(over)
        try:
            yield
        finally:
            over.set_result(None)
            self._running[session].discard(over)
            if not self._running[session]:
                del self._running[session]

    def _generate(self, request: LlmRequest, prompt: str, queue_s: float) -> AsyncGenerator[TokenDelta]:
        def complete(writer: DeltaWriter) -> tuple[Literal["stop", "length"], LlmUsage]:
            answer = _Answer(writer, silent=request.prefill)
            self._server.handle_completions(self._body(request, prompt), answer.take)
            return answer.end(queue_s)

        return thread_stream(self._threads, complete, self._options.coalesce_ms / 1000)

    def _body(self, request: LlmRequest, prompt: str) -> str:
        options = self._options
        body: dict[str, Any] = {
            "prompt": prompt,
            "max_tokens": 0 if request.prefill else request.max_tokens,
            "temperature": request.temperature,
            "cache_prompt": options.reuse,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if options.no_repeat_ngram:
            body |= {
                "dry_multiplier": _FORBIDDING,
                "dry_base": 1.0,
                "dry_allowed_length": options.no_repeat_ngram - 1,
                # About as far back as the answer goes; what the caller said may be said again.
                "dry_penalty_last_n": request.max_tokens,
                "dry_sequence_breakers": ["\n"],
            }
        return json.dumps(body)


class _Answer:
    """One generation's chunks; `take` runs in the engine's thread. `silent`: the one token that comes is not wanted."""

    def __init__(self, writer: DeltaWriter, *, silent: bool) -> None:
        self._writer = writer
        self._silent = silent
        self._finish: Literal["stop", "length"] | None = None
        self._usage: dict[str, Any] = {}
        self._fault: dict[str, Any] | None = None

    def take(self, chunk: Any) -> bool:
        """Take one chunk; True tells the engine to stop."""
        if self._writer.stopped:
            return True
        event: dict[str, Any] = json.loads(chunk) if isinstance(chunk, str | bytes) else chunk
        if "choices" not in event:
            self._fault = event.get("error", event)
            return True
        for choice in event["choices"][:1]:
            if choice.get("finish_reason"):
                self._finish = "length" if choice["finish_reason"] == "length" else "stop"
            elif not self._silent:
                self._writer.write(choice["text"])
        self._usage = event.get("usage") or self._usage
        return False

    def end(self, queue_s: float) -> tuple[Literal["stop", "length"], LlmUsage]:
        """How it ended; raises what the engine said instead."""
        if self._fault is not None:
            message = str(self._fault.get("message", self._fault))
            if self._fault.get("type") == _TOO_LONG:
                remedy = "Shorten the instructions or the messages."
                raise CallerError(f"the conversation is too long: {message}.", remedy, code="context_length_exceeded")
            raise BackendError(f"llama.cpp: {message}.", "Retry on another replica.", stage="llm")
        if self._finish is None:
            raise BackendError("llama.cpp ended the answer without a reason.", stage="llm")
        cached = (self._usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        prompt = int(self._usage.get("prompt_tokens", 0))
        return self._finish, LlmUsage(prompt, self._writer.tokens, int(cached), queue_s)


def parameters_of(file: Path, options: LlamaCppOptions) -> Any:
    """Return the parameters with which llama.cpp opens `file`."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx = options.context_tokens
    parameters.n_parallel = options.slots
    parameters.kv_unified = True
    parameters.cpuparams.n_threads = options.threads
    parameters.cpuparams_batch.n_threads = options.threads
    parameters.cache_ram_mib = KEPT_STATES_MB if options.reuse else 0
    parameters.warmup = True
    parameters.verbosity = -1
    parameters.api_keys = [secrets.token_hex()]
    return parameters


def chat_template(file: Path) -> ChatTemplate:
    """The chat template that a GGUF file carries; raises ModelError if it has none."""
    fields = gguf.GGUFReader(file).fields
    source = fields.get("tokenizer.chat_template")
    if source is None:
        raise ModelError("has no chat template.", "Use an instruction-tuned model.", file=str(file))
    names = fields["tokenizer.ggml.tokens"]
    special = {}
    for key in ("bos", "eos"):
        field = fields.get(f"tokenizer.ggml.{key}_token_id")
        special[f"{key}_token"] = "" if field is None else str(names.contents(int(field.contents())))
    return ChatTemplate(str(source.contents()), special, file)


def _quantization(file: Path) -> str:
    return file.suffixes[0].lstrip(".").lower() if len(file.suffixes) > 1 else "gguf"
