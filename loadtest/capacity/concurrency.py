"""The latency guide's tables of concurrency (section 5) and memory (section 4.3), cell by cell.

Every cell has a status:

- measured: measured on this machine.
- projected: computed from measurements. The cell's source shows the arithmetic.
- published: taken from a publication, which the source names.
- does not hold: the guide's figure is not met. The cell names a configuration that meets it.
- not known: there is no evidence.

`hardware_cells` fills the tables of sections 4.1 and 4.2 in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from loadtest.capacity.footprint import HOST_CORES, LinearFit
from rejoinder.core.capacity.hardware import JOBS_PER_WORKER, RAM, SESSION_ROWS, Ram

NO_SERVER = "no server was given"


class CellStatus(Enum):
    """Kind of evidence for a cell of the latency guide's tables. FAILS means that the guide's figure is not met."""

    MEASURED = "measured"
    PROJECTED = "projected"
    PUBLISHED = "published"
    FAILS = "does not hold"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the latency guide's tables.

    Attributes:
        table: Section of the guide with the table, such as "4.3".
        row: Label of the row.
        column: Label of the column.
        guide: The guide's figure, as text. "-" if the guide has no such cell.
        found: Result for Rejoinder, as text.
        status: Kind of evidence.
        source: Source of the result, or its arithmetic.
        would: If the guide's figure is not met, a configuration that meets it. Else empty.
    """

    table: str
    row: str
    column: str
    guide: str
    found: str
    status: CellStatus
    source: str
    would: str = ""


@dataclass(frozen=True, slots=True)
class MeasuredEngine:
    """Cost of one engine on one core of this machine.

    Attributes:
        memory_mb: Memory of a process with only this engine, in MB.
        job_ms: Time of one job in milliseconds. A job is a VAD window, a clip, an answer or a sentence.
        pace: Seconds of audio processed per second. For the language model, tokens per second.
    """

    memory_mb: float
    job_ms: float
    pace: float


@dataclass(frozen=True, slots=True)
class Quantized:
    """Comparison of float32 and int8 weights on this machine.

    Attributes:
        model: Name of the model.
        speedup: Speed with int8 weights divided by the speed with float32 weights.
        error: Word errors with int8 weights minus word errors with float32 weights, as a share of all words. Negative
            if int8 has fewer errors.
        what: Numbers of word errors in both precisions, of words and of clips, as text.
    """

    model: str
    speedup: float
    error: float
    what: str


@dataclass(frozen=True, slots=True)
class ConcurrencyRun:
    """A load run on one host.

    Attributes:
        sessions: Number of sessions.
        outcome: PASS, FAIL, UNDECIDED or INVALID.
        p95_ms: 95th percentile of voice-to-voice latency in milliseconds. None without answers.
        host_cores: Mean number of CPU cores used by the host.
        host_memory_mb: Memory of the host in MB.
        causes: Failed self-checks of the load generator that make the run INVALID, in words.
    """

    sessions: int
    outcome: str
    p95_ms: float | None
    host_cores: float
    host_memory_mb: float
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurements:
    """All measurements from which the tables are computed.

    Attributes:
        engines: Cost of each engine, by stage: vad, stt, llm, tts.
        quantized: Comparisons of float32 and int8.
        runs: Load runs. Empty without a server.
        cores_line: CPU cores of a host as a straight line over its sessions. None without a server.
        memory_line: Memory of a host in MB as a straight line over its sessions. None without a server.
        cores: Number of CPU cores of this machine.
    """

    engines: Mapping[str, MeasuredEngine]
    quantized: Sequence[Quantized]
    runs: Sequence[ConcurrencyRun] = ()
    cores_line: LinearFit | None = None
    memory_line: LinearFit | None = None
    cores: int = 1

    @property
    def furthest(self) -> int:
        """Largest number of sessions of a valid load run. 0 if no run is valid."""
        return max((run.sessions for run in self.runs if run.outcome != "INVALID"), default=0)


def sessions(measurements: Measurements) -> Iterator[Cell]:
    """Yield the cells of the latency guide's section 5, for 10 to 10,000 sessions.

    Each number of sessions has four cells:

    - the result of a load run on this machine,
    - the cores and memory of workers with 10 sessions each, and of workers with 20 sessions each (the guide calls a
      session a job),
    - the cores and memory of hosts with as many sessions as fit within `HOST_CORES`.
    """
    runs = {run.sessions: run for run in measurements.runs}
    for count in SESSION_ROWS:
        yield _held(count, runs.get(count), measurements)
        for jobs in JOBS_PER_WORKER:
            yield _workers(count, jobs, measurements)
        yield _filled(count, measurements)


def _held(count: int, run: ConcurrencyRun | None, measurements: Measurements) -> Cell:
    """Return the cell with the result of the load run with `count` sessions. Without a run, use `_not_run`."""
    table, row, column = "5", f"{count:,} sessions", "held on one machine"
    if run is None:
        return _not_run(count, measurements)
    result = f"{run.outcome}, p95 {run.p95_ms:.0f} ms" if run.p95_ms is not None else run.outcome
    if run.outcome == "INVALID":
        return Cell(
            table,
            row=row,
            column=column,
            guide="-",
            found="the load generator failed its self-check",
            status=CellStatus.UNKNOWN,
            source="; ".join(run.causes),
        )
    if run.outcome == "FAIL":
        would = _would_hold(count, measurements)
        return Cell(
            table,
            row=row,
            column=column,
            guide="-",
            found=result,
            status=CellStatus.FAILS,
            source="rejoinder load run",
            would=would,
        )
    return Cell(
        table, row=row, column=column, guide="-", found=result, status=CellStatus.MEASURED, source="rejoinder load run"
    )


def _not_run(count: int, measurements: Measurements) -> Cell:
    """Return the cell for `count` sessions that no load run measured.

    The cell compares the cores that the hosts alone would need with the cores of this machine.
    """
    table, row, column = "5", f"{count:,} sessions", "held on one machine"
    if measurements.cores_line is None:
        return Cell(table, row=row, column=column, guide="-", found="-", status=CellStatus.UNKNOWN, source=NO_SERVER)
    needed = measurements.cores_line.at(count) / HOST_CORES
    line = measurements.cores_line
    source = f"({line.at_none:.3f} + {count:,} x {line.each:.4f}) cores / {HOST_CORES:g}"
    result = f"{needed:.1f} cores for hosts"
    if needed > measurements.cores:
        machines = math.ceil(needed / measurements.cores)
        would = f"on {machines:,} machines like this one for the hosts, engines elsewhere"
        return Cell(
            table,
            row=row,
            column=column,
            guide="-",
            found=f"{result}, {measurements.cores} here",
            status=CellStatus.FAILS,
            source=source,
            would=would,
        )
    return Cell(table, row=row, column=column, guide="-", found=result, status=CellStatus.PROJECTED, source=source)


def _would_hold(count: int, measurements: Measurements) -> str:
    if measurements.cores_line is None:
        return "fewer sessions a machine"
    return f"{measurements.cores_line.at(count) / HOST_CORES:.1f} cores for hosts alone, engines elsewhere"


def _workers(count: int, jobs: int, measurements: Measurements) -> Cell:
    """Return the cell with the cores and memory of the hosts for `count` sessions, with `jobs` sessions on each host.

    The latency guide calls a host a worker, and a session a job.
    """
    workers = math.ceil(count / jobs)
    guide = f"{_count(workers, 'worker')} of {jobs} jobs"
    return _hosts_cell(count, workers=workers, guide=guide, column=f"{jobs} jobs a worker", measurements=measurements)


def _filled(count: int, measurements: Measurements) -> Cell:
    """Return the cell with the cores and memory of hosts for `count` sessions. Each host is filled to `HOST_CORES`."""
    line = measurements.cores_line
    if line is None or not line.each:
        return Cell(
            "5",
            row=f"{count:,} sessions",
            column="filled hosts",
            guide="-",
            found="-",
            status=CellStatus.UNKNOWN,
            source=NO_SERVER,
        )
    most = max(1, int((HOST_CORES - line.at_none) / line.each))
    return _hosts_cell(
        count,
        workers=math.ceil(count / most),
        guide="-",
        column=f"filled hosts ({most} sessions)",
        measurements=measurements,
    )


def _hosts_cell(count: int, workers: int, guide: str, column: str, *, measurements: Measurements) -> Cell:
    row = f"{count:,} sessions"
    cores, memory = measurements.cores_line, measurements.memory_line
    if cores is None or memory is None:
        return Cell("5", row=row, column=column, guide=guide, found="-", status=CellStatus.UNKNOWN, source=NO_SERVER)
    core, gb = _total(cores, workers, count), _total(memory, workers, count) / 1000
    used = f"{_count(workers, 'host')}: {core:.1f} cores, {gb:.1f} GB"
    source = (
        f"{workers:,} x {cores.at_none:.3f} + {count:,} x {cores.each:.4f} cores; "
        f"{workers:,} x {memory.at_none:.0f} + {count:,} x {memory.each:.2f} MB"
    )
    run_here = workers == 1 and any(run.sessions == count and run.outcome != "INVALID" for run in measurements.runs)
    return Cell(
        "5",
        row=row,
        column=column,
        guide=guide,
        found=used,
        status=CellStatus.MEASURED if run_here else CellStatus.PROJECTED,
        source=source,
    )


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _total(line: LinearFit, workers: int, count: int) -> float:
    return workers * line.at_none + count * line.each


# -- section 4.3 of the latency guide: memory -------------------------------------------------------------------------

KV_SHARE = 0.15
"""Memory for the KV cache and the engine itself, as a share of the memory for the weights."""

PRECISION_BITS = {"FP16": 16, "INT8": 8, "INT4": 4}


def ram(measurements: Measurements) -> Iterator[Cell]:
    """Yield the cells of the latency guide's section 4.3, three for each component, such as a model.

    They say whether the guide's minimum, recommended and production memory is enough.
    """
    for row in RAM:
        for column, given_mb in (
            ("minimum", row.minimum_mb),
            ("recommended", row.recommended_mb),
            ("production", row.production_mb),
        ):
            yield _ram_cell(row, column, given_mb, measurements)


def _ram_cell(row: Ram, column: str, given_mb: int, measurements: Measurements) -> Cell:
    guide = f"{given_mb / 1000:g} GB"
    if row.parameters_b:
        return _weights_cell(row, column, given_mb)
    needed = _needed_mb(row, measurements)
    if needed is None:
        return Cell(
            "4.3", row=row.component, column=column, guide=guide, found="-", status=CellStatus.UNKNOWN, source=NO_SERVER
        )
    mb, source, status = needed
    if mb > given_mb:
        would = f"{mb / 1000:.1f} GB"
        return Cell(
            "4.3",
            row=row.component,
            column=column,
            guide=guide,
            found=f"{mb:.0f} MB needed",
            status=CellStatus.FAILS,
            source=source,
            would=would,
        )
    return Cell(
        "4.3",
        row=row.component,
        column=column,
        guide=guide,
        found=f"enough: {mb:.0f} MB, {given_mb / mb:.0f}x",
        status=status,
        source=source,
    )


def _needed_mb(row: Ram, measurements: Measurements) -> tuple[float, str, CellStatus] | None:
    """Return (needed memory in MB, source, status) of a component on this machine. None if it was not measured."""
    stage = {"VAD (Silero)": "vad", "STT (Whisper)": "stt", "TTS": "tts"}.get(row.component)
    if stage:
        engine = measurements.engines.get(stage)
        return (
            (engine.memory_mb, f"our {stage} engine in a process of its own", CellStatus.MEASURED) if engine else None
        )
    line = measurements.memory_line
    if line is None:
        return None
    count = measurements.furthest if row.component == "LiveKit Server" else max(JOBS_PER_WORKER)
    source = (
        f"our host (server and worker in one) with {count} sessions: {line.at_none:.0f} + {count} x {line.each:.2f} MB"
    )
    return line.at(count), source, CellStatus.PROJECTED


def _weights_cell(row: Ram, column: str, given_mb: int) -> Cell:
    """Return the cell of a model that is too large to run here. The memory it needs is computed from its parameters.

    Args:
        row: The component.
        column: Column of the guide: minimum, recommended or production.
        given_mb: Memory in MB that the guide states in this column.
    """
    needs = {name: row.parameters_b * bits / 8 * (1 + KV_SHARE) for name, bits in PRECISION_BITS.items()}
    fits = [name for name, gb in needs.items() if gb * 1000 <= given_mb]
    source = ", ".join(f"{name} {gb:.1f} GB" for name, gb in needs.items())
    source = f"parameters x bits / 8, {KV_SHARE:.0%} more for cache and engine: {source}"
    guide = f"{given_mb / 1000:g} GB"
    if "FP16" in fits:
        return Cell(
            "4.3",
            row=row.component,
            column=column,
            guide=guide,
            found="enough at FP16",
            status=CellStatus.PROJECTED,
            source=source,
        )
    would = f"{' or '.join(fits)} weights" if fits else f"{needs['INT4']:.1f} GB"
    return Cell(
        "4.3",
        row=row.component,
        column=column,
        guide=guide,
        found="too little at FP16",
        status=CellStatus.FAILS,
        source=source,
        would=would,
    )
