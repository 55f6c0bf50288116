"""A generation that blocks a thread, as a stream of deltas that can be closed at any token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from actors.stages.ports import LlmUsage, TokenDelta
from deployments.engines.llm.delta_writer import DeltaWriter
from rejoinder.core.errors import BackendError

Job = Callable[[DeltaWriter], tuple[Literal["stop", "length"], LlmUsage]]


async def thread_stream(threads: ThreadPoolExecutor, job: Job, coalesce_s: float) -> AsyncGenerator[TokenDelta]:
    """Run `job` in a thread: it writes tokens until the writer is stopped, and returns how it ended.

    What the job raises comes out here, RuntimeError as BackendError. Closing or cancelling stops the job at its next
    token, and returns when its thread is free.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[TokenDelta | None] = asyncio.Queue(maxsize=0)  # bounded by max_tokens
    writer = DeltaWriter(lambda delta: _post(loop, queue, delta), coalesce_s)
    generation = loop.run_in_executor(threads, job, writer)
    generation.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (delta := await queue.get()) is not None:
            yield delta
        yield writer.last(*generation.result())
    except RuntimeError as error:
        raise BackendError(f"generation failed: {error}.", "Retry on another replica.", stage="llm") from error
    finally:
        writer.stop()
        await asyncio.wait([generation])
        if not generation.cancelled():
            generation.exception()  # of a stream that was closed nobody asks for it


def _post(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[TokenDelta | None], delta: TokenDelta) -> None:
    loop.call_soon_threadsafe(queue.put_nowait, delta)
