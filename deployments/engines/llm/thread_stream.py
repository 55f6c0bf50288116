"""Stream a generation that blocks a thread, in a way that can be cancelled at any token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from actors.stages.ports import LlmUsage, TokenDelta
from deployments.engines.llm.delta_writer import DeltaWriter
from rejoinder.core.errors import BackendError

# Function that generates an answer: it writes tokens until the writer is stopped, and returns why the answer ended and
# the token usage.
Job = Callable[[DeltaWriter], tuple[Literal["stop", "length"], LlmUsage]]


async def thread_stream(threads: ThreadPoolExecutor, job: Job, coalesce_s: float) -> AsyncGenerator[TokenDelta]:
    """Run `job` in a thread and yield its deltas.

    Closing or cancelling the generator stops the job at its next token, and returns when the thread is free.

    Args:
        threads: Pool that runs the job.
        job: Function that writes tokens to the `DeltaWriter` that it gets, and ends if `DeltaWriter.stopped` is true at
            a token.
        coalesce_s: Minimum time between two deltas, in seconds.

    Raises:
        BackendError: The job raised RuntimeError. Other exceptions of the job propagate.
    """
    loop = asyncio.get_running_loop()
    # Unbounded, because an answer has at most max_tokens tokens.
    queue: asyncio.Queue[TokenDelta | None] = asyncio.Queue(maxsize=0)
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
            # A closed stream never reads the exception. Retrieve it, so that asyncio does not log it.
            generation.exception()


def _post(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[TokenDelta | None], delta: TokenDelta) -> None:
    loop.call_soon_threadsafe(queue.put_nowait, delta)
