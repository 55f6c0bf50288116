"""The embedded language model: a GGUF file in llama.cpp, with concurrent answers and KV cache reuse.

Decoding on a CPU is bound by the size of the weights, so 4-bit weights are fast. Each conversation has a slot of
llama.cpp, which keeps its KV cache, so its next prompt computes only the new tokens. Up to `slots` answers decode
together, one token each per step. Up to `max_queue` requests wait, in order of arrival.

The library xllamacpp runs llama.cpp's server inside this process. It always opens an HTTP port. The port is on loopback
and protected by a random key.
"""

from __future__ import annotations

import asyncio
import glob
import json
import logging
import re
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import xllamacpp

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from deployments.engines.device import bytes_of
from deployments.engines.llm.chat_template import ChatTemplate
from deployments.engines.llm.delta_writer import DeltaWriter
from deployments.engines.llm.gguf_metadata import Metadata, read_metadata
from deployments.engines.llm.instruction_states import FILES, InstructionStates
from deployments.engines.llm.message_end import TOP_TOKENS, end_probability
from deployments.engines.llm.slot_table import SlotTable
from deployments.engines.llm.thread_stream import thread_stream
from deployments.engines.llm.tools.grammar import tool_grammar
from rejoinder.core.errors import BackendError, CallerError, ModelError, Overloaded
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.calls import FunctionTool

logger = logging.getLogger(__name__)
KEPT_CONVERSATIONS = 16
"""Minimum number of conversations whose KV cache stays in a slot of llama.cpp.

With fewer slots than conversations, most prompts are computed from the end of the instructions on: with 8 conversations
on 4 slots and one core, the first token took a median of 5.0 s, with 16 slots 0.9 s (30 November 2026).
"""
MOST_SLOTS = 256
"""Maximum number of sequences in llama.cpp (LLAMA_MAX_SEQ)."""
PREFILL_WAIT_S = 30.0
"""Maximum time in seconds that a request waits for a prefill of its own instructions, which may be long."""
SESSION_WAIT_S = 0.5
"""Maximum time in seconds that a request waits until an earlier request of the same session has left its slot.

A session's KV cache can be reused only in an idle slot. A cancelled request or a prefill leaves its slot within a few
tokens. In another slot, a prompt of 235 tokens of the default model took 3.2 s while speech was recognized on the same
cores; with the cache it took 0.2 s.
"""
# Multiplier of llama.cpp's DRY penalty on repetition, so high that sampling never chooses a repeating token.
_PROHIBITIVE = 1000.0
# Matches the quantization at the end of a file name, such as Q4_1 or iq4_xs, before the part number of a split file.
_QUANTIZATION = re.compile(r"[.-](I?Q\d\w*|B?F16|F32|MXFP4\w*)(?:-\d{5}-of-\d{5})?$", re.IGNORECASE)
# Matches the later parts of a split GGUF file. llama.cpp reads them when the first part is opened.
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
_CONTROL = 3
"""Type of control tokens in `tokenizer.ggml.token_type`."""
# Tokenizers to which llama.cpp adds the beginning-of-sequence token if the file says nothing (src/llama-vocab.cpp).
_MODELS_WITH_BOS = frozenset({"llama", "gemma4"})
_PRE_TOKENIZERS_WITH_BOS = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral"})
RESULT_HINT = ChatMessage("system", "Tell the caller this result in one short spoken sentence.")
"""Last message of a prompt that ends with the result of a tool. Without it, the default model describes the result's
JSON, or repeats the bare result.
"""
# The grammar allows this character only in tool calls.
CALL_MARK = "{"
_TOO_LONG = "exceed_context_size_error"


@dataclass(frozen=True, slots=True)
class LlamaCppOptions:
    """Options of the llama.cpp engine.

    Attributes:
        model: Name for reports.
        threads: Threads of one decoding step.
        slots: Number of answers that are decoded together.
        max_queue: Maximum number of waiting requests.
        coalesce_ms: Minimum time between two deltas, in milliseconds.
        context_tokens: Size of the KV cache in tokens, shared by all slots.
        no_repeat_ngram: Length of token runs that an answer may not repeat. 0 turns this off.
        reuse: Reuse the KV cache of a conversation's earlier prompts.
        gpu_layers: Number of the model's layers that the GPU computes. 0: none.
        chained_calls: Whether the model may call a tool when its prompt does not end with a message of the user, so
            after the result of another call.
    """

    model: str = "smollm2-135m-instruct"
    threads: int = 1
    slots: int = 4
    max_queue: int = 16
    coalesce_ms: float = 15.0
    context_tokens: int = 16384
    no_repeat_ngram: int = 0
    reuse: bool = True
    gpu_layers: int = 0
    chained_calls: bool = False


class LlamaCpp:
    """One GGUF model in memory. Not thread-safe: use it from one event loop."""

    prefills = True

    def __init__(self, path: Path, options: LlamaCppOptions = LlamaCppOptions()) -> None:
        """Load a GGUF file, or the one in a folder; raise ModelError if there is none or it cannot be loaded."""
        file = gguf_file(path)
        stem = _QUANTIZATION.sub("", file.stem) if "/" in options.model else options.model
        self.name = f"{stem} {_quantization(file)} (llama.cpp)"
        self._options = options
        self._template = chat_template(file)
        parameters = parameters_of(file, options)
        try:
            self._server = xllamacpp.Server(parameters)
        except (RuntimeError, ValueError) as error:
            remedy = "Run `rejoinder models verify`."
            raise ModelError("cannot be loaded by llama.cpp.", remedy, file=str(file), found=str(error)) from error
        # A server that is destroyed before its loop has begun never ends: the loop then starts after it was stopped. An
        # answered request shows that the loop runs.
        self._server.handle_completions(json.dumps({"prompt": "a", "max_tokens": 1}), lambda _: False)
        self._places = asyncio.Semaphore(options.slots)
        self._slots = SlotTable(_kept(options))
        self._states = InstructionStates(self._server.listening_address, parameters.api_keys[0])
        self._threads = ThreadPoolExecutor(options.slots, thread_name_prefix="llama-cpp")
        self._active = 0
        self._running: dict[str, set[asyncio.Future[None]]] = defaultdict(set)
        # By session, the first message of the prompt that is being prefilled.
        self._prefills: dict[str, tuple[ChatMessage, ...]] = {}

    @property
    def active(self) -> int:
        """Number of requests that run or wait."""
        return self._active

    async def check_health(self) -> None:
        """Do nothing: a crash of the engine ends this process, and callers' timeouts detect a hanging generation."""

    def close(self) -> None:
        """Stop the threads. No stream may be running."""
        self._threads.shutdown()
        self._states.close()

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta]:
        """Generate an answer: the first token at once, later ones coalesced, usage with the last delta.

        Closing or cancelling the generator removes a waiting request from the queue at once. It stops a running request
        at its next token, and returns when the slot is free. A prefill is skipped if every slot is taken.

        Raises:
            Overloaded: `max_queue` requests wait already.
            CallerError: The prompt leaves no room for an answer.
            BackendError: The engine failed.
        """
        alone = await self._wait_for_session(request)
        if request.prefill and (self._places.locked() or not alone):
            yield TokenDelta("", 0, "stop", LlmUsage(0, 0))  # skip the prefill: answers have priority
            return
        if request.prefill and not request.whole:
            prompt = self._template.render_open(request.messages, tools=_described(request))
        else:
            hint = (RESULT_HINT,) if self._speaks_result(request) else ()
            messages = (*request.messages, *hint)
            prompt = self._template.render(messages, answer=request.prefix, tools=_described(request))
        if self._active >= self._options.max_queue + self._options.slots:
            message = f"{self._active} requests are running or waiting."
            raise Overloaded(message, "Retry, or add an llm replica.", resource="llm.max_queue")
        self._active += 1
        arrived_at = time.monotonic()
        try:
            with self._registered(request):
                async with self._places:
                    queue_s = time.monotonic() - arrived_at
                    slot, new = self._slots.take(request.session if alone else "")
                    async with aclosing(self._generate(request, prompt, queue_s, slot=slot, new=new)) as deltas:
                        async for delta in deltas:
                            yield delta
        finally:
            self._active -= 1

    def _speaks_result(self, request: LlmRequest) -> bool:
        """Return True if the answer must be the result of a tool in words, and not another call."""
        after_result = bool(request.messages) and request.messages[-1].role == "tool"
        return after_result and not self._options.chained_calls and not request.tools.forced

    async def _wait_for_session(self, request: LlmRequest) -> bool:
        """Wait for the session's earlier requests to end. Return True if none is left.

        The wait is at most SESSION_WAIT_S seconds. It is at most PREFILL_WAIT_S if a prefill of the same instructions
        runs, because another slot would need longer to compute them again.
        """
        if others := self._running.get(request.session):
            prefilled = self._prefills.get(request.session)
            shared = prefilled is not None and prefilled == request.messages[:1]
            await asyncio.wait(others, timeout=PREFILL_WAIT_S if shared else SESSION_WAIT_S)
        return not self._running.get(request.session)

    @contextmanager
    def _registered(self, request: LlmRequest) -> Iterator[None]:
        """Register a running request of a session, for which `_wait_for_session` waits.

        Do nothing if the request belongs to no session.
        """
        session = request.session
        if not session:
            yield
            return
        if request.prefill:
            self._prefills[session] = request.messages[:1]
        ended = asyncio.get_running_loop().create_future()
        self._running[session].add(ended)
        try:
            yield
        finally:
            ended.set_result(None)
            if request.prefill:
                self._prefills.pop(session, None)
            self._running[session].discard(ended)
            if not self._running[session]:
                del self._running[session]

    def _generate(
        self, request: LlmRequest, prompt: str, queue_s: float, *, slot: int, new: bool
    ) -> AsyncGenerator[TokenDelta]:
        """Generate an answer in a slot. `new` is True if the slot held another conversation, or none."""

        def complete(writer: DeltaWriter) -> tuple[Literal["stop", "length"], LlmUsage]:
            if new and self._options.reuse:
                self._load_instructions(request.messages[0], _described(request), slot)
            text_tokens = None if request.prefill or not request.tools.active else request.max_tokens
            answer = _Answer(writer, silent=request.prefill, text_tokens=text_tokens)
            self._server.handle_completions(self._body(request, prompt, slot), answer.on_chunk)
            return answer.end(queue_s)

        return thread_stream(self._threads, complete, self._options.coalesce_ms / 1000)

    def _load_instructions(self, first: ChatMessage, tools: tuple[FunctionTool, ...], slot: int) -> None:
        """Put the KV cache of a conversation's instructions and tools into its slot.

        Do nothing if it has no instructions.

        If this fails, the request computes the whole prompt.
        """
        if first.role != "system" or not first.content:
            return
        try:
            prompt = self._template.render_open((first,), tools=tools)
        except CallerError:  # the template needs a user's message
            return
        body = {"prompt": prompt, "id_slot": slot, "max_tokens": 0, "cache_prompt": True}
        try:
            self._states.load(prompt, slot, lambda: self._server.handle_completions(json.dumps(body), lambda _: False))
        except OSError as error:
            logger.warning("llama.cpp could not keep the KV cache of the instructions: %s.", error)

    def _body(self, request: LlmRequest, prompt: str, slot: int) -> str:
        options = self._options
        body: dict[str, Any] = {
            "prompt": prompt,
            "id_slot": slot,
            "max_tokens": (1 if request.judge_end else 0) if request.prefill else request.answer_tokens,
            "temperature": request.temperature,
            "cache_prompt": options.reuse,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.prefill and request.judge_end:
            body["logprobs"] = TOP_TOKENS
        elif request.tools.active and not request.prefill and CALL_MARK not in request.prefix:
            # A penalty on repetition would corrupt arguments that repeat the caller's words or each other.
            answers_result = request.messages[-1].role != "user" and not options.chained_calls
            body["grammar"] = tool_grammar(request.tools, text_only=answers_result)
        elif options.no_repeat_ngram:
            body |= {
                "dry_multiplier": _PROHIBITIVE,
                "dry_base": 1.0,
                "dry_allowed_length": options.no_repeat_ngram - 1,
                # The penalty considers the last `max_tokens` tokens, which are mostly the answer and not the prompt.
                # So the answer may repeat the caller's words.
                "dry_penalty_last_n": request.max_tokens,
                "dry_sequence_breakers": ["\n"],
            }
        return json.dumps(body)


class _Answer:
    """Parser of the JSON chunks that llama.cpp streams for one generation. `on_chunk` runs in the engine's thread."""

    def __init__(self, writer: DeltaWriter, *, silent: bool, text_tokens: int | None = None) -> None:
        """Create a parser that writes the generated text to `writer`.

        Args:
            writer: Receives the text.
            silent: True for a prefill: its text is dropped, because llama.cpp generates a token even then.
            text_tokens: Maximum number of tokens before a tool call; None for no limit.
        """
        self._text_tokens = text_tokens
        self._begun = ""
        self._writer = writer
        self._silent = silent
        self._finish: Literal["stop", "length"] | None = None
        self._usage: dict[str, Any] = {}
        self._fault: dict[str, Any] | None = None
        self._end_probability: float | None = None

    def on_chunk(self, chunk: Any) -> bool:
        """Parse one chunk; return True to stop the engine."""
        if self._writer.stopped:
            return True
        event: dict[str, Any] = json.loads(chunk) if isinstance(chunk, str | bytes) else chunk
        if "choices" not in event:
            self._fault = event.get("error", event)
            return True
        for choice in event["choices"][:1]:
            if self._silent and self._end_probability is None:
                self._end_probability = _end_probability(choice)
            if choice.get("finish_reason"):
                self._finish = "length" if choice["finish_reason"] == "length" else "stop"
            elif not self._silent:
                self._writer.write(choice["text"])
                if self._too_long(choice["text"]):
                    self._finish = "length"
                    return True
        self._usage = event.get("usage") or self._usage
        return False

    def _too_long(self, text: str) -> bool:
        """Return True if the answer has more text than it may have, and no tool call has begun."""
        if self._text_tokens is None:
            return False
        self._begun += text
        if CALL_MARK in self._begun:
            self._text_tokens = None
            return False
        return self._writer.tokens >= self._text_tokens

    def end(self, queue_s: float) -> tuple[Literal["stop", "length"], LlmUsage]:
        """Return why the answer ended and its token usage. `queue_s` is the time in seconds that the request waited.

        Raises CallerError if the prompt was too long, BackendError if the engine reported another error.
        """
        if self._fault is not None:
            message = str(self._fault.get("message", self._fault))
            if self._fault.get("type") == _TOO_LONG:
                remedy = "Shorten the instructions or the messages."
                raise CallerError(f"the conversation is too long: {message}.", remedy, code="context_length_exceeded")
            raise BackendError(f"llama.cpp: {message}.", "Retry on another replica.", stage="llm")
        if self._finish is None and not self._writer.stopped:
            raise BackendError("llama.cpp ended the answer without a reason.", stage="llm")
        cached = (self._usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        prompt = int(self._usage.get("prompt_tokens", 0))
        return self._finish or "stop", LlmUsage(
            prompt, self._writer.tokens, int(cached), queue_s, end_probability=self._end_probability
        )


def _described(request: LlmRequest) -> tuple[FunctionTool, ...]:
    """Return the tools that are a part of the prompt."""
    return request.tools.tools if request.tools.active else ()


def _end_probability(choice: dict[str, Any]) -> float | None:
    """Return the probability that the message ends before the token of this chunk; None if none was requested."""
    tokens = (choice.get("logprobs") or {}).get("content")
    return end_probability(tokens[0]["top_logprobs"]) if tokens else None


def _kept(options: LlamaCppOptions) -> int:
    """Return the number of llama.cpp's slots, each of which keeps the KV cache of one conversation.

    It is at least twice the number of answers at a time, so that a new conversation need not wait for a busy slot.
    """
    return min(MOST_SLOTS, max(2 * options.slots, KEPT_CONVERSATIONS)) if options.reuse else options.slots


def parameters_of(file: Path, options: LlamaCppOptions) -> Any:
    """Return llama.cpp's parameters for the GGUF `file`."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx = options.context_tokens
    parameters.n_parallel = _kept(options)
    parameters.kv_unified = True
    # llama.cpp's second cache moves the KV caches of idle slots out and often does not find them again: with 4
    # conversations on one core, the median of the first token was 1.8 s with it, 0.1 s without (30 November 2026).
    parameters.cache_idle_slots = False
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = options.threads
    parameters.cpuparams_batch.n_threads = options.threads
    parameters.n_gpu_layers = options.gpu_layers
    if options.gpu_layers:
        parameters.fit_params = False  # it would move layers to the CPU, unseen, if the GPU's memory does not suffice
    parameters.warmup = True
    parameters.verbosity = -1
    parameters.slot_save_path = FILES
    parameters.api_keys = [secrets.token_hex()]
    return parameters


def gguf_file(path: Path) -> Path:
    """Return the GGUF file at `path`, a file or a folder with one model; of a split model, the first part.

    Raises:
        ModelError: There is none, or the folder has several models.
    """
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError("is not a GGUF file.", "Name a file that ends in .gguf.", file=str(path))
        return path
    found = sorted(file for file in path.glob("*.gguf") if not _LATER_PART.search(file.name))
    if not found:
        raise ModelError("does not hold a GGUF file.", "Run `rejoinder models pull`.", file=str(path))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ModelError("holds several models.", "Name one file in llm.model.", file=str(path), found=names)
    return found[0]


ALL_LAYERS = 999
"""Value of `gpu_layers` that is more than any model has."""


def weights_on_gpu(file: Path, layers: int) -> float:
    """Return the bytes of a GGUF model's weights on a GPU that computes `layers` of its layers.

    Args:
        file: The file, or the first part of a split one.
        layers: Number of layers on the GPU; more than the model has means all.
    """
    total: float = bytes_of(file.parent.glob(re.sub(r"00001(-of-\d{5})$", r"*\1", glob.escape(file.stem)) + ".gguf"))
    if layers >= ALL_LAYERS:
        return total
    metadata = read_metadata(file)
    count: Any = metadata.get(f"{metadata.get('general.architecture')}.block_count", layers)
    return total * min(1.0, layers / float(count))


def chat_template(file: Path) -> ChatTemplate:
    """Return the chat template in a GGUF file.

    Raises:
        ModelError: The file is not a GGUF file, or has no chat template.
    """
    metadata = read_metadata(file)
    source = metadata.get("tokenizer.chat_template")
    if not isinstance(source, str):
        remedy = "Use an instruction-tuned model (llm.model)."
        raise ModelError("has no chat template.", remedy, file=str(file))
    tokens: Any = metadata["tokenizer.ggml.tokens"]
    kinds: Any = metadata.get("tokenizer.ggml.token_type", [])
    special = {}
    for key in ("bos", "eos"):
        number: Any = metadata.get(f"tokenizer.ggml.{key}_token_id")
        special[f"{key}_token"] = "" if number is None else str(tokens[number])
    control = [tokens[number] for number, kind in enumerate(kinds) if kind == _CONTROL]
    return ChatTemplate(source, special, file, control_tokens=control, adds_bos=_adds_bos(metadata))


def _adds_bos(metadata: Metadata) -> bool:
    """Return True if llama.cpp puts the beginning-of-sequence token before every prompt of this model."""
    stated = metadata.get("tokenizer.ggml.add_bos_token")
    if stated is not None:
        return bool(stated)
    if metadata.get("tokenizer.ggml.model") in _MODELS_WITH_BOS:
        return True
    return metadata.get("tokenizer.ggml.pre") in _PRE_TOKENIZERS_WITH_BOS


def _quantization(file: Path) -> str:
    """Return the quantization in the file's name, such as q4_k_m, or "gguf" if the name has none."""
    found = _QUANTIZATION.search(file.stem)
    return found[1].lower() if found else "gguf"
