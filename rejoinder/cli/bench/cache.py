"""`rejoinder bench cache`: how long a kept answer takes by Serve handle, against the model's first token."""

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
"""The requirement: a hit answers within it."""

SCOPE = "bench"
# How a question is asked when its answer is kept, and how it is asked again.
KEPT, AGAIN, OTHER = (
    "Where is the entrance of building {}?",
    "Please tell me where the entrance of the building {} is.",
    "Where is the car park of building {}?",
)
WARM_UP = 20
STORING = 8


@dataclass(frozen=True, slots=True)
class CacheRow:
    """`found`: what was asked for was found (or not, for a miss) every time."""

    what: str
    spread: Spread
    found: bool = True

    def document(self) -> dict[str, Any]:
        """What `--json` writes of it."""
        figures = {"ms": self.spread.median_ms, "p95_ms": self.spread.p95_ms, "most_ms": self.spread.most_ms}
        return {"what": self.what, "count": self.spread.count, "found": self.found} | {
            name: round(value, 2) for name, value in figures.items()
        }


@dataclass(frozen=True, slots=True)
class CacheResults:
    """The rows, and the engines that answered."""

    rows: list[CacheRow]
    engines: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether every hit was one, and 95 of 100 came within the limit."""
        hits = [row for row in self.rows if row.what.startswith("hit")]
        return all(row.found and row.spread.p95_ms <= LIMIT_MS for row in hits)


def measure(entries: int, lookups: int, answers: int) -> CacheResults:
    """A cache with so many entries, asked so often for each row; the model gives so many answers of its own."""
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
    """A host's handles, inside one replica."""

    def __init__(self, cache: Any, llm: Any, settings: Settings) -> None:
        from deployments.serving.handles import AnswerCacheHandle, LlmHandle

        self._handles = {"answer_cache": cache, "llm": llm}
        self._cache = AnswerCacheHandle(cache)
        self._llm = LlmHandle(llm)
        self._settings = settings.conversation

    async def measure(self, entries: int, lookups: int, answers: int) -> CacheResults:
        """Fill the cache, then time each kind of lookup and the model's first tokens."""
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
        taken = [await _timed(look_up, number) for number in range(count)]
        return CacheRow(what, spread([ms for ms, _ in taken]), all(right for _, right in taken))

    async def _first_token_ms(self, number: int) -> float:
        """Of an opening: the instructions are known to the engine after the first one."""
        prompt = (ChatMessage("system", self._settings.instructions), ChatMessage("user", OTHER.format(number)))
        began = time.perf_counter()
        async with self._llm.open(LlmRequest(prompt, self._settings.max_reply_tokens, session=f"s{number}")) as stream:
            async for _ in stream:
                break
        return (time.perf_counter() - began) * 1000


async def _timed(look_up: Callable[[int], Awaitable[bool]], number: int) -> tuple[float, bool]:
    began = time.perf_counter()
    right = await look_up(number)
    return (time.perf_counter() - began) * 1000, right


def _question(form: str, number: int) -> CacheQuestion:
    return CacheQuestion(SCOPE, form.format(number))


def table(found: CacheResults) -> Table:
    """Each row, in milliseconds."""
    shown = Table("answer", "times", "p50 ms", "p95 ms", "most ms", "found", title="inside a replica, by Serve handle")
    for row in found.rows:
        figures = (f"{value:.1f}" for value in (row.spread.median_ms, row.spread.p95_ms, row.spread.most_ms))
        shown.add_row(row.what, str(row.spread.count), *figures, "as expected" if row.found else "NOT as expected")
    return shown
