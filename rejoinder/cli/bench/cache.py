"""`rejoinder bench cache`: latency of a cached answer through a Serve handle, compared with the first token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from rich.table import Table

from actors.stages.ports import CachedAnswer, LlmRequest
from cluster.launch import cluster
from loadtest.results.spread import Spread, spread
from rejoinder.core.reply.answer_cache import CacheQuestion
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import AnswerCacheSettings, Settings

LIMIT_MS = 50.0
"""Limit of the 95th percentile of the time of a lookup that finds an answer, in milliseconds."""

SCOPE = "bench"
# Format strings of the stored questions, of their paraphrases, and of questions without a stored answer. The
# placeholder is the number of a building.
KEPT, AGAIN, OTHER = (
    "Where is the entrance of building {}?",
    "Please tell me where the entrance of the building {} is.",
    "Where is the car park of building {}?",
)
WARM_UP = 20
"""Number of lookups before each measurement."""
STORING = 8
"""Number of answers that are stored concurrently."""


@dataclass(frozen=True, slots=True)
class CacheRow:
    """Measured times of one kind of lookup, or of the language model's first token.

    Attributes:
        what: Name of the kind.
        spread: Distribution of the times, in milliseconds.
        found: True if every lookup had the expected result: the right answer, or none for a miss.
    """

    what: str
    spread: Spread
    found: bool = True

    def document(self) -> dict[str, Any]:
        """Return the row as the dict that `--json` writes.

        Its keys are what, count, found, ms (median), p95_ms and most_ms (maximum).
        """
        figures = {"ms": self.spread.median_ms, "p95_ms": self.spread.p95_ms, "most_ms": self.spread.most_ms}
        return {"what": self.what, "count": self.spread.count, "found": self.found} | {
            name: round(value, 2) for name, value in figures.items()
        }


@dataclass(frozen=True, slots=True)
class CacheResults:
    """Results of the measurement.

    Attributes:
        rows: One row for each kind of lookup, and one for the language model's first token.
        engines: Engine name of each measured stage: answer_cache and llm.
    """

    rows: list[CacheRow]
    engines: dict[str, str]

    @property
    def holds(self) -> bool:
        """True if every lookup of a stored answer found it, and its p95 is at most LIMIT_MS (50 ms)."""
        hits = [row for row in self.rows if row.what.startswith("hit")]
        return all(row.found and row.spread.p95_ms <= LIMIT_MS for row in hits)


def measure(entries: int, lookups: int, answers: int) -> CacheResults:
    """Start a local Ray cluster, and measure equal questions, paraphrases, misses, and the model's first token.

    Args:
        entries: Number of answers in the cache.
        lookups: Number of lookups of each kind.
        answers: Number of first tokens of the language model to measure.
    """
    settings = Settings(answer_cache=AnswerCacheSettings(enabled=True, max_entries=max(entries, 1)))
    with cluster("local"):
        return asyncio.run(_run(settings, entries, lookups, answers))


async def _run(settings: Settings, entries: int, lookups: int, answers: int) -> CacheResults:
    from ray import serve

    from deployments.answer_cache import AnswerCache
    from deployments.app import stage_deployment
    from deployments.llm import Llm

    cache = stage_deployment(AnswerCache, settings.answer_cache).bind(settings)
    llm = stage_deployment(Llm, settings.llm).bind(settings)
    probe = serve.deployment(CacheProbe, ray_actor_options={"num_cpus": 0}).bind(cache, llm, settings)
    serve.start(proxy_location="Disabled")
    running = await asyncio.to_thread(serve.run, probe, name="bench", route_prefix=None)
    return cast(CacheResults, await running.measure.remote(entries, lookups, answers))


class CacheProbe:
    """Serve deployment that measures from inside a replica, with the same handles to the stages as a session host."""

    def __init__(self, cache: Any, llm: Any, settings: Settings) -> None:
        from deployments.serving.handles import AnswerCacheHandle, LlmHandle

        self._handles = {"answer_cache": cache, "llm": llm}
        self._cache = AnswerCacheHandle(cache)
        self._llm = LlmHandle(llm)
        self._settings = settings.conversation

    async def measure(self, entries: int, lookups: int, answers: int) -> CacheResults:
        """Fill the cache, then measure each kind of lookup and the language model's first tokens.

        Args:
            entries: Number of answers in the cache.
            lookups: Number of lookups of each kind.
            answers: Number of answers of the language model whose time to first token is measured.
        """
        await self._fill(entries)
        rows = [
            await self._lookups("hit, equal question", form=KEPT, kind="exact", entries=entries, count=lookups),
            await self._lookups("hit, paraphrase", form=AGAIN, kind="semantic", entries=entries, count=lookups),
            await self._lookups("miss", form=OTHER, kind=None, entries=entries, count=lookups),
            CacheRow("language model, first token", spread([await self._first_token_ms(n) for n in range(answers)])),
        ]
        engines = {name: str((await handle.describe.remote())["engine"]) for name, handle in self._handles.items()}
        return CacheResults(rows, engines)

    async def _fill(self, entries: int) -> None:
        for first in range(0, entries, STORING):
            numbers = range(first, min(first + STORING, entries))
            await asyncio.gather(
                *(self._cache.store(CachedAnswer(_question(KEPT, n), f"At gate {n}.")) for n in numbers)
            )

    async def _lookups(self, what: str, form: str, kind: str | None, entries: int, *, count: int) -> CacheRow:
        async def look_up(number: int) -> bool:
            hit = await self._cache.lookup(_question(form, number % entries))
            return (hit.kind if hit else None) == kind and (not hit or hit.answer == f"At gate {number % entries}.")

        for number in range(WARM_UP):
            await look_up(number)
        times = [await _timed(look_up, number) for number in range(count)]
        return CacheRow(what, spread([ms for ms, _ in times]), all(right for _, right in times))

    async def _first_token_ms(self, number: int) -> float:
        """Return the TTFT of the first turn of conversation `number`, in ms.

        Its question contains the number, so only the instructions can be in the KV cache of the language model.
        """
        prompt = (ChatMessage("system", self._settings.instructions), ChatMessage("user", OTHER.format(number)))
        started_at = time.perf_counter()
        async with self._llm.open(LlmRequest(prompt, self._settings.max_reply_tokens, session=f"s{number}")) as stream:
            async for _ in stream:
                break
        return (time.perf_counter() - started_at) * 1000


async def _timed(look_up: Callable[[int], Awaitable[bool]], number: int) -> tuple[float, bool]:
    started_at = time.perf_counter()
    right = await look_up(number)
    return (time.perf_counter() - started_at) * 1000, right


def _question(form: str, number: int) -> CacheQuestion:
    return CacheQuestion(SCOPE, form.format(number))


def table(found: CacheResults) -> Table:
    """Return a table with one row per kind of lookup, and one for the language model's first token.

    A row has the number of times, their median, p95 and maximum in milliseconds, and whether each lookup gave the
    expected result.
    """
    rows = Table(
        "answer", "times", "p50 ms", "p95 ms", "most ms", "found", title="inside a replica, through Serve handles"
    )
    for row in found.rows:
        figures = (f"{value:.1f}" for value in (row.spread.median_ms, row.spread.p95_ms, row.spread.most_ms))
        rows.add_row(row.what, str(row.spread.count), *figures, "as expected" if row.found else "NOT as expected")
    return rows
