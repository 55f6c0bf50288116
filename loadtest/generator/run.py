"""One load run from scenario to result: draw the schedule, start the workers together, and judge the measurements.

The server must be on this machine unless the scenario sets `owned`. Load could otherwise hit a server that someone else
operates.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from hdrh.histogram import HdrHistogram

from loadtest.callers.turn_outcomes import FAILING, REGION, RESUME
from loadtest.generator.assignment import WorkerAssignment, scenario_document
from loadtest.generator.self_check import failure_causes
from loadtest.generator.server_view import MemoryWatch, ServerView
from loadtest.generator.workers import ProgressCallback, RunProgress, run_workers
from loadtest.judging import verdicts
from loadtest.results.result import CURVE, Counts, FailingCalls, Latency, Region, RunResult, emulated
from loadtest.scenario import schedule
from loadtest.scenario.network import route
from loadtest.scenario.scenario import Scenario
from loadtest.scenario.schedule import Schedule
from rejoinder.core.errors import ConfigError

START_IN_S = 3.0
"""Time between the start of the workers and the start of the run, in which the workers load their modules and clips."""


def run(scenario: Scenario, watch: ProgressCallback = lambda _: None) -> RunResult:
    """Run a scenario and return its result.

    Args:
        scenario: What to run.
        watch: Called with the progress after each report of a worker, about once a second for each worker.

    Raises:
        ConfigError: The server is on another machine although the scenario does not set `owned`, or the scenario has
            no valid schedule.
        BackendError: The server does not answer, or a worker ended early.
    """
    check_target(scenario)
    frozen = schedule.plan(scenario)
    server = ServerView(scenario)
    engines, memory = server.engines(), MemoryWatch(server)
    start_at = time.time() + START_IN_S
    progress = RunProgress(frozen.measure_to_s + scenario.drain_s, start_at)
    assignments = [
        WorkerAssignment(
            scenario,
            calls=frozen.shard(worker, scenario.workers),
            measure_from_s=frozen.measure_from_s,
            measure_to_s=frozen.measure_to_s,
            start_at=start_at,
        )
        for worker in range(scenario.workers)
    ]
    asyncio.run(_hold(run_workers(assignments, progress, watch), memory.run(start_at, scenario.for_s)))
    memory_mb = memory.between(frozen.measure_from_s, frozen.measure_to_s)
    return result(scenario, frozen=frozen, progress=progress, engines=engines, memory_mb=memory_mb)


async def _hold(working: Coroutine[Any, Any, None], watching: Coroutine[Any, Any, None]) -> None:
    """Run two coroutines at the same time, and cancel `watching` when `working` is done.

    If either raises an exception, the other is cancelled and this exception is raised, not an exception group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watching)
            await working
            watcher.cancel()
    except ExceptionGroup as failures:
        # If both failed, raise the error of `working`. The group lists it last, because `working` runs in its body.
        raise failures.exceptions[-1] from None


def check_target(scenario: Scenario) -> None:
    """Raise ConfigError if the server is on another machine and the scenario does not set `owned`."""
    for url in (scenario.url, *scenario.fallbacks):
        host = urlsplit(url).hostname or ""
        if not scenario.owned and not _local(host):
            raise ConfigError(
                f"{host!r} is not this machine.",
                "Load is only sent to this machine. If you operate the server, use --set owned=true.",
                field="--url",
            )


def _local(host: str) -> bool:
    try:
        return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


def result(
    scenario: Scenario,
    frozen: Schedule,
    progress: RunProgress,
    engines: dict[str, str],
    *,
    memory_mb: tuple[tuple[float, float], ...],
) -> RunResult:
    """Judge the measurements of the workers and return the result of the run.

    Args:
        scenario: The scenario of the run.
        frozen: Schedule of the run.
        progress: The merged reports of the workers.
        engines: Engine of each stage, as the server reports it.
        memory_mb: (seconds after the start of the run, MiB) samples of the replicas' resident memory.
    """
    series = progress.merged.seconds
    counts = _counts(progress, len(frozen.calls))
    checks = progress.fitness().checks()
    causes = failure_causes(checks)
    gates = verdicts.gates(scenario.tier, series, counts)
    return RunResult(
        outcome=verdicts.overall(gates, causes),
        scenario=scenario_document(scenario),
        schedule_sha256=frozen.sha256,
        started_at=datetime.fromtimestamp(progress.start_at, UTC).isoformat(timespec="seconds"),
        held_s=scenario.for_s,
        engines=engines,
        counts=counts,
        checks=checks,
        verdicts=(*gates, *verdicts.guide_verdicts(series)),
        latencies={name: latency(histogram) for name, histogram in series.items() if not name.startswith(REGION)},
        regions=tuple(_regions(series)),
        timeline=progress.timeline(),
        causes=causes,
        notes=tuple(_notes(progress.merged.counts, series, emulated(engines))),
        memory_mb=memory_mb,
        slowest=tuple(turn for _, turn in progress.merged.slowest),
        failing=failing_calls(progress.merged.counts),
    )


def failing_calls(counts: Mapping[str, int]) -> tuple[FailingCalls, ...]:
    """Return the calls with faults by cause, largest group first, from the workers' counts by name."""
    causes: dict[str, dict[str, int]] = {}
    for name, number in counts.items():
        if name.startswith(FAILING):
            region, _, cause = name.removeprefix(FAILING).partition(":")
            causes.setdefault(cause, {})[region] = number
    groups = [
        FailingCalls(cause, sum(regions.values()), dict(sorted(regions.items()))) for cause, regions in causes.items()
    ]
    return tuple(sorted(groups, key=lambda group: (-group.calls, group.cause)))


def latency(histogram: HdrHistogram) -> Latency:
    """Return mean, percentiles and maximum, in milliseconds, of a histogram of times in microseconds."""

    def at(percentile: float) -> float:
        return float(round(histogram.get_value_at_percentile(percentile) / 1000, 2))

    return Latency(
        count=int(histogram.get_total_count()),
        mean_ms=round(histogram.get_mean_value() / 1000, 2),
        p50_ms=at(50),
        p90_ms=at(90),
        p95_ms=at(95),
        p99_ms=at(99),
        max_ms=at(100),
        curve=tuple((percentile, at(percentile)) for percentile in CURVE),
        histogram=histogram.encode().decode("ascii"),
    )


def _counts(progress: RunProgress, scheduled: int) -> Counts:
    counts = progress.merged.counts
    traffic: Counter[str] = sum(progress.traffic.values(), Counter())
    return Counts(
        sessions_scheduled=scheduled,
        sessions_opened=counts["opened"],
        sessions_refused=counts["refused"],
        sessions_failed=counts["setup_failed"],
        sessions_dropped=counts["dropped"],
        sessions_lost=counts["lost"],
        sessions_resumed=counts["resumed"],
        turns=counts["turns"],
        answered=counts["answered"],
        interrupted=counts["interrupted"],
        failed=counts["failed"],
        unanswered=counts["unanswered"],
        premature=counts["premature"],
        cut_off=counts["cut_off"],
        interruptions=counts["interruptions"],
        late_yields=counts["late_yields"],
        false_interruptions=counts["false_interruptions"],
        responses=counts["responses"],
        responses_failed=counts["responses_failed"],
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
        bounds, measured = route(name), latency(series[REGION + name])
        rtt_ms = (bounds.rtt_low_ms + bounds.rtt_high_ms) / 2
        rows.append(
            Region(
                name,
                rtt_ms=rtt_ms,
                turns=measured.count,
                p50_ms=measured.p50_ms,
                p95_ms=measured.p95_ms,
                p99_ms=measured.p99_ms,
            )
        )
    return rows


def _notes(counts: Counter[str], series: dict[str, HdrHistogram], emulated_engines: dict[str, str]) -> list[str]:
    stages = ", ".join(sorted(emulated_engines))
    notes = [f"The engines of {stages} are emulated: this run does not measure their models."] if stages else []
    for prefix, what in (("error:", "Server errors"), ("drop:", "Dropped calls")):
        notes += [
            f"{what} ({name.removeprefix(prefix)}): {counts[name]}." for name in counts if name.startswith(prefix)
        ]
    if counts["lost"]:
        resumed = latency(series[RESUME]) if RESUME in series else None
        took = f", after {resumed.p50_ms:.0f} ms at the median and {resumed.p95_ms:.0f} ms at p95" if resumed else ""
        notes.append(f"{counts['resumed']} of {counts['lost']} lost connections were resumed{took}.")
    if counts["undrained"]:
        notes.append(f"{counts['undrained']} calls were still open at the end of the drain time.")
    if counts["abandoned"]:
        notes.append(f"{counts['abandoned']} turns are not counted, because their callers hung up before an answer.")
    if counts["unreported"]:
        notes.append(f"{counts['unreported']} answered turns have no stages, because the server did not report them.")
    return notes
