"""One load run from scenario to result: freeze the schedule, start the workers on one clock, judge.

The target must be this machine unless the caller says that it owns the server: a load generator is a weapon.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from hdrh.histogram import HdrHistogram

from loadtest.callers.turn_outcomes import REGION
from loadtest.generator import self_check as fitness
from loadtest.generator import workers as crew
from loadtest.generator.assignment import WorkerAssignment, scenario_document
from loadtest.generator.server_view import MemoryWatch, ServerView
from loadtest.judging import verdicts
from loadtest.results.result import CURVE, Counts, Latency, Region, RunResult, emulated
from loadtest.scenario import schedule
from loadtest.scenario.network import route
from loadtest.scenario.scenario import Scenario
from loadtest.scenario.schedule import Schedule
from rejoinder.core.errors import ConfigError

START_IN_S = 3.0
"""Workers need so long to load before the common start."""


def run(scenario: Scenario, watch: crew.Watch = lambda _: None) -> RunResult:
    """Hold the scenario. Raises ConfigError if it must not be held, BackendError if the server or a worker is away."""
    check_target(scenario)
    frozen = schedule.plan(scenario)
    server = ServerView(scenario)
    engines, memory = server.engines(), MemoryWatch(server)
    start_at = time.time() + START_IN_S
    progress = crew.RunProgress(frozen.measure_to_s + scenario.drain_s, start_at)
    orders = [
        WorkerAssignment(
            scenario,
            calls=frozen.shard(worker, scenario.workers),
            measure_from_s=frozen.measure_from_s,
            measure_to_s=frozen.measure_to_s,
            start_at=start_at,
        )
        for worker in range(scenario.workers)
    ]
    asyncio.run(_hold(crew.run_workers(orders, progress, watch), memory.run(start_at, scenario.for_s)))
    held = memory.between(frozen.measure_from_s, frozen.measure_to_s)
    return result(scenario, frozen=frozen, progress=progress, engines=engines, memory_mb=held)


async def _hold(working: Coroutine[Any, Any, None], watching: Coroutine[Any, Any, None]) -> None:
    """Watch while the work goes on; what the work raises is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            beside = group.create_task(watching)
            await working
            beside.cancel()
    except ExceptionGroup as faults:
        raise faults.exceptions[-1] from None  # the work's own is the last


def check_target(scenario: Scenario) -> None:
    """Raises ConfigError if the server is on another machine and the tester did not say that it is theirs."""
    host = urlsplit(scenario.url).hostname or ""
    if not scenario.owned and not _local(host):
        raise ConfigError(
            f"{host!r} is not this machine.",
            "Load goes to loopback only; if the server is yours, say so with --set owned=true.",
            field="--url",
        )


def _local(host: str) -> bool:
    try:
        return all(ipaddress.ip_address(found[4][0]).is_loopback for found in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


def result(
    scenario: Scenario,
    frozen: Schedule,
    progress: crew.RunProgress,
    engines: dict[str, str],
    *,
    memory_mb: tuple[tuple[float, float], ...],
) -> RunResult:
    """Judge what the workers brought."""
    series = progress.merged.seconds
    counts = _counts(progress, len(frozen.calls))
    checks = progress.fitness().checks()
    causes = fitness.causes(checks)
    decisive = verdicts.gates(scenario.tier, series, counts)
    return RunResult(
        outcome=verdicts.overall(decisive, causes),
        scenario=scenario_document(scenario),
        schedule_sha256=frozen.sha256,
        started_at=datetime.fromtimestamp(progress.start_at, UTC).isoformat(timespec="seconds"),
        held_s=scenario.for_s,
        engines=engines,
        counts=counts,
        checks=checks,
        verdicts=(*decisive, *verdicts.guide_verdicts(series)),
        latencies={name: latency(taken) for name, taken in series.items() if not name.startswith(REGION)},
        regions=tuple(_regions(series)),
        timeline=progress.timeline(),
        causes=causes,
        notes=tuple(_notes(progress.merged.counts, emulated(engines))),
        memory_mb=memory_mb,
        slowest=tuple(turn for _, turn in progress.merged.slowest),
    )


def latency(taken: HdrHistogram) -> Latency:
    """A histogram in microseconds as a report has it."""

    def at(percentile: float) -> float:
        return float(round(taken.get_value_at_percentile(percentile) / 1000, 2))

    return Latency(
        count=int(taken.get_total_count()),
        mean_ms=round(taken.get_mean_value() / 1000, 2),
        p50_ms=at(50),
        p90_ms=at(90),
        p95_ms=at(95),
        p99_ms=at(99),
        max_ms=at(100),
        curve=tuple((percentile, at(percentile)) for percentile in CURVE),
        histogram=taken.encode().decode("ascii"),
    )


def _counts(progress: crew.RunProgress, scheduled: int) -> Counts:
    counts = progress.merged.counts
    traffic: Counter[str] = sum(progress.traffic.values(), Counter())
    return Counts(
        sessions_scheduled=scheduled,
        sessions_opened=counts["opened"],
        sessions_refused=counts["refused"],
        sessions_failed=counts["setup_failed"],
        sessions_dropped=counts["dropped"],
        turns=counts["turns"],
        answered=counts["answered"],
        interrupted=counts["interrupted"],
        failed=counts["failed"],
        unanswered=counts["unanswered"],
        premature=counts["premature"],
        hedged=counts["hedged"],
        underruns=counts["underruns"],
        audio_s=round(counts["audio_us"] / 1e6, 3),
        underrun_s=round(counts["underrun_us"] / 1e6, 3),
        frames_scheduled=traffic["scheduled"],
        frames_sent=traffic["sent"],
        bytes_sent=traffic["bytes_sent"],
        bytes_received=traffic["bytes_received"],
    )


def _regions(series: dict[str, HdrHistogram]) -> list[Region]:
    rows = []
    for name in sorted(key.removeprefix(REGION) for key in series if key.startswith(REGION)):
        by, taken = route(name), latency(series[REGION + name])
        rtt_ms = (by.rtt_low_ms + by.rtt_high_ms) / 2
        rows.append(
            Region(
                name, rtt_ms=rtt_ms, turns=taken.count, p50_ms=taken.p50_ms, p95_ms=taken.p95_ms, p99_ms=taken.p99_ms
            )
        )
    return rows


def _notes(counts: Counter[str], unreal: dict[str, str]) -> list[str]:
    stages = ", ".join(sorted(unreal))
    notes = [f"Emulated engines ({stages}): this measures the system, not a model."] if unreal else []
    for prefix, what in (("error:", "server errors"), ("drop:", "calls dropped")):
        notes += [f"{counts[name]} {what}: {name.removeprefix(prefix)}" for name in counts if name.startswith(prefix)]
    if counts["undrained"]:
        notes.append(f"{counts['undrained']} calls were still open when the drain's time was over.")
    if counts["abandoned"]:
        notes.append(f"{counts['abandoned']} turns are not counted: their callers hung up before an answer began.")
    if counts["unreported"]:
        notes.append(f"{counts['unreported']} answered turns came without the server's division into stages.")
    return notes
