"""`rejoinder bench hedging`: requests with and without hedging, on real Serve replicas with the emulated engine."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from actors.stages.hedged_llm import GenerationStats, Hedger
from actors.stages.ports import LlmRequest
from actors.stages.retry import StageFailures
from cluster.launch import cluster
from deployments.serving.metrics import ConversationMetrics
from loadtest.benches.hedge_ab import CASES, HedgeArm, HedgeCase, HedgeComparison, arrivals
from rejoinder.core.errors import BackendError, ConfigError, Overloaded
from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.settings.settings import Settings, parse_settings

QUESTION = LlmRequest((ChatMessage("user", "Hello"),), max_tokens=8)
GIVE_UP_S = 20.0
"""Seconds after which a request counts as unanswered."""
WARM_UP = 150
"""Number of requests before the measurement. They fill the hedger's window of TTFTs and open the connections."""


def compare(names: str, requests: int, console: Console) -> list[HedgeComparison]:
    """Start a local Ray cluster, and measure each case in two arms: with hedging off and on.

    Args:
        names: Names of cases, separated by commas; "": all cases.
        requests: Number of requests of each arm.
        console: Receives one line for each case.

    Returns:
        The results of both arms, one element for each case.
    """
    chosen = [_named(name) for name in names.split(",")] if names else list(CASES)
    with cluster("local"):
        return asyncio.run(_compare(chosen, requests, console))


async def _compare(cases: Sequence[HedgeCase], requests: int, console: Console) -> list[HedgeComparison]:
    comparisons = []
    for case in cases:
        off, on = [await _measured(case, requests, hedging) for hedging in (False, True)]
        comparisons.append(HedgeComparison(case, off, on))
        console.print(f"{case.name}: {_summary(comparisons[-1])}", style="dim")
    return comparisons


def _named(name: str) -> HedgeCase:
    for case in CASES:
        if case.name == name:
            return case
    raise ConfigError(
        f"there is no case {name!r}.", f"Cases: {', '.join(case.name for case in CASES)}.", field="--cases"
    )


def settings_of(case: HedgeCase, *, hedging: bool) -> Settings:
    """Return the application's settings for one arm of a case. `hedging` is True for the arm with hedging."""
    scaling = {"min_replicas": case.replicas, "max_replicas": case.replicas}
    return parse_settings(
        {
            "llm": {
                "engine": "emulated",
                "emulation": case.emulation,
                "autoscaling": scaling,
                "max_ongoing_requests": 1000,
                "max_queue": 1000,
            },
            "hedging": {"enabled": hedging},
        }
    )


async def _measured(case: HedgeCase, requests: int, hedging: bool) -> HedgeArm:
    """Measure one arm of a case in a separate Serve application, with `requests` requests.

    `hedging` is True for the arm with hedging. `serve.run` and `serve.delete` block, so they are called in a thread.
    The event loop keeps running meanwhile, because Serve's router is bound to the loop that used it first.
    """
    from ray import serve

    from deployments.app import stage_deployment
    from deployments.llm import Llm

    settings = settings_of(case, hedging=hedging)
    handle = stage_deployment(Llm, settings.llm).bind(settings)
    wrapped = serve.deployment(HedgeProbe, ray_actor_options={"num_cpus": 0})
    probe = wrapped.bind(settings, handle)
    name = f"{case.name}-{'on' if hedging else 'off'}"
    serve.start(proxy_location="Disabled")
    running = await asyncio.to_thread(serve.run, probe, name=name, route_prefix=None)
    try:
        ttft_ms, unanswered, sent, won = await running.measure.remote(requests, case.rate)
    finally:
        await asyncio.to_thread(serve.delete, name)
    return HedgeArm(hedging, ttft_ms=tuple(ttft_ms), unanswered=unanswered, sent=sent, won=won)


class HedgeProbe:
    """Serve deployment that sends requests from inside a replica, with the same hedger as a session host."""

    def __init__(self, settings: Settings, handle: Any) -> None:
        from deployments.serving.handles import LlmHandle

        self._registry = CollectorRegistry()
        self._metrics = ConversationMetrics(self._registry)
        self._hedger = Hedger(LlmHandle(handle), settings, self._metrics, time.monotonic)

    async def measure(self, requests: int, rate: float) -> tuple[list[float], int, int, int]:
        """Send `requests` requests on a schedule of random arrivals, on average `rate` per second.

        Returns:
            Four elements: the TTFTs of the answered requests in ms from their scheduled arrivals, the number of
            unanswered requests, the number of hedges, and the number of hedges that had the first token.
        """
        running = asyncio.create_task(self._hedger.run())
        try:
            await self._replay(arrivals(WARM_UP, rate, seed=0))
            before = self._hedges("sent"), self._hedges("won")
            ttfts_s = await self._replay(arrivals(requests, rate))
        finally:
            running.cancel()
        answered = [ttft_s * 1000 for ttft_s in ttfts_s if math.isfinite(ttft_s)]
        sent, won = self._hedges("sent") - before[0], self._hedges("won") - before[1]
        return answered, len(ttfts_s) - len(answered), sent, won

    async def _replay(self, schedule: Sequence[float]) -> list[float]:
        started_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            requests = []
            for at in schedule:
                await asyncio.sleep(max(0.0, started_at + at - time.monotonic()))
                requests.append(group.create_task(self._ttft_s(started_at + at)))
        return [task.result() for task in requests]

    async def _ttft_s(self, scheduled: float) -> float:
        """Return the TTFT in seconds from the scheduled arrival; infinity if the request was not answered."""
        first = math.inf
        try:
            async for _ in self._hedger.stream(QUESTION, StageFailures(self._metrics), GenerationStats(), GIVE_UP_S):
                first = min(first, time.monotonic() - scheduled)
        except (BackendError, Overloaded):
            return math.inf
        return first

    def _hedges(self, outcome: str) -> int:
        return round(self._registry.get_sample_value("rejoinder_hedges_total", {"outcome": outcome}) or 0)


def document(found: HedgeComparison) -> dict[str, Any]:
    """Return a case as the dict that `--json` writes, with the keys case, off, on, p99_fall and holds.

    `off` and `on` are the two arms: counts of requests and hedges, and percentiles of the TTFT in ms. `p99_fall` is the
    relative reduction of the p99 by hedging (0.5 means that it is halved). `holds` is True if the case is within its
    limits.
    """
    arms = {
        name: {
            "requests": len(arm.ttft_ms) + arm.unanswered,
            "unanswered": arm.unanswered,
            "p50_ms": round(arm.quantile(0.5), 1),
            "p95_ms": round(arm.quantile(0.95), 1),
            "p99_ms": round(arm.quantile(0.99), 1),
            "hedges_sent": arm.sent,
            "hedges_won": arm.won,
        }
        for name, arm in (("off", found.off), ("on", found.on))
    }
    return {"case": asdict(found.case), **arms, "p99_fall": round(found.fall, 4), "holds": found.holds}


def table(compared: Sequence[HedgeComparison]) -> Table:
    """Return a table with one row for each case, with hedging off and on in each cell.

    The columns are percentiles of the TTFT in ms, the relative reduction of the p99, the share of additional requests,
    the number of unanswered requests, and whether the case is within its limits.
    """
    title = "time to first token, ms, hedging off / on; emulated engine on real Serve replicas"
    rows = Table("case", "p50", "p95", "p99", "p99 falls", "extra requests", "unanswered", "holds", title=title)
    for found in compared:
        shares = (f"{found.off.quantile(share):.0f} / {found.on.quantile(share):.0f}" for share in (0.5, 0.95, 0.99))
        unanswered = f"{found.off.unanswered} / {found.on.unanswered}"
        holds = "yes" if found.holds else "no"
        rows.add_row(found.case.name, *shares, f"{found.fall:.0%}", f"{found.on.extra:.1%}", unanswered, holds)
    return rows


def _summary(found: HedgeComparison) -> str:
    return (
        f"p99 {found.off.quantile(0.99):.0f} ms without, {found.on.quantile(0.99):.0f} with hedging, "
        f"{found.on.extra:.1%} more requests"
    )
