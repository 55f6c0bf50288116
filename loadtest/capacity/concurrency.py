"""The latency guide's tables of concurrency and hardware (sections 4.1 to 4.3, 5), cell by cell.

Every cell is measured here, projected from what was measured (with the arithmetic), published (with its source), or
does not hold (with the configuration in which it would). A cell that nobody measured and nothing implies says so; none
is made up.
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
    """What stands behind a cell."""

    MEASURED = "measured"
    PROJECTED = "projected"
    PUBLISHED = "published"
    FAILS = "does not hold"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Cell:
    """`guide` is what it prints, `found` what is known, `source` how; `would`: where a failing cell would hold."""

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
    """One engine on one core of this machine; `pace` in seconds of audio (the language model: tokens) a second."""

    memory_mb: float
    job_ms: float
    pace: float


@dataclass(frozen=True, slots=True)
class Quantized:
    """float32 against int8 on this machine: speed-up and additional errors, as a share."""

    model: str
    speedup: float
    error: float
    what: str


@dataclass(frozen=True, slots=True)
class ConcurrencyRun:
    """A load run of so many sessions on one host: its outcome, and what the host used."""

    sessions: int
    outcome: str
    p95_ms: float | None
    host_cores: float
    host_memory_mb: float
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything that was measured. `engines` by stage: vad, stt, llm, tts. `cores`: of this machine."""

    engines: Mapping[str, MeasuredEngine]
    quantized: Sequence[Quantized]
    runs: Sequence[ConcurrencyRun] = ()
    cores_line: LinearFit | None = None
    memory_line: LinearFit | None = None
    cores: int = 1

    @property
    def furthest(self) -> int:
        """The most sessions of a run whose generator was fit."""
        return max((run.sessions for run in self.runs if run.outcome != "INVALID"), default=0)


def sessions(known: Measurements) -> Iterator[Cell]:
    """10 to 10,000 sessions: held here, on workers of 10 and 20 jobs (section 5), and on filled hosts."""
    runs = {run.sessions: run for run in known.runs}
    for count in SESSION_ROWS:
        yield _held(count, runs.get(count), known)
        for jobs in JOBS_PER_WORKER:
            yield _workers(count, jobs, known)
        yield _filled(count, known)


def _held(count: int, run: ConcurrencyRun | None, known: Measurements) -> Cell:
    """Whether so many were held, by the run itself."""
    table, row, column = "5", f"{count:,} sessions", "held on one machine"
    if run is None:
        return _not_run(count, known)
    shown = f"{run.outcome}, p95 {run.p95_ms:.0f} ms" if run.p95_ms is not None else run.outcome
    if run.outcome == "INVALID":
        return Cell(
            table,
            row=row,
            column=column,
            guide="-",
            found="the generator was not fit",
            status=CellStatus.UNKNOWN,
            source="; ".join(run.causes),
        )
    if run.outcome == "FAIL":
        would = _would_hold(count, known)
        return Cell(
            table,
            row=row,
            column=column,
            guide="-",
            found=shown,
            status=CellStatus.FAILS,
            source="rejoinder load run",
            would=would,
        )
    return Cell(
        table, row=row, column=column, guide="-", found=shown, status=CellStatus.MEASURED, source="rejoinder load run"
    )


def _not_run(count: int, known: Measurements) -> Cell:
    """By the cores that the hosts alone would use, were there as many as sessions need."""
    table, row, column = "5", f"{count:,} sessions", "held on one machine"
    if known.cores_line is None:
        return Cell(table, row=row, column=column, guide="-", found="-", status=CellStatus.UNKNOWN, source=NO_SERVER)
    needed = known.cores_line.at(count) / HOST_CORES
    source = f"({known.cores_line.at_none:.3f} + {count:,} x {known.cores_line.each:.4f}) cores / {HOST_CORES:g}"
    shown = f"{needed:.1f} cores for hosts"
    if needed > known.cores:
        machines = math.ceil(needed / known.cores)
        would = f"on {machines:,} machines like this one for the hosts, engines elsewhere"
        return Cell(
            table,
            row=row,
            column=column,
            guide="-",
            found=f"{shown}, {known.cores} here",
            status=CellStatus.FAILS,
            source=source,
            would=would,
        )
    return Cell(table, row=row, column=column, guide="-", found=shown, status=CellStatus.PROJECTED, source=source)


def _would_hold(count: int, known: Measurements) -> str:
    if known.cores_line is None:
        return "fewer sessions a machine"
    return f"{known.cores_line.at(count) / HOST_CORES:.1f} cores for hosts alone, engines elsewhere"


def _workers(count: int, jobs: int, known: Measurements) -> Cell:
    """Workers of so many jobs each: how many, and what they use together."""
    workers = math.ceil(count / jobs)
    guide = f"{_many(workers, 'worker')} of {jobs} jobs"
    return _hosts_cell(count, workers=workers, guide=guide, column=f"{jobs} jobs a worker", known=known)


def _filled(count: int, known: Measurements) -> Cell:
    """Our own hosts, filled to HOST_CORES of a core."""
    line = known.cores_line
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
        count, workers=math.ceil(count / most), guide="-", column=f"filled hosts ({most} sessions)", known=known
    )


def _hosts_cell(count: int, workers: int, guide: str, column: str, *, known: Measurements) -> Cell:
    row = f"{count:,} sessions"
    cores, memory = known.cores_line, known.memory_line
    if cores is None or memory is None:
        return Cell("5", row=row, column=column, guide=guide, found="-", status=CellStatus.UNKNOWN, source=NO_SERVER)
    core, gb = _total(cores, workers, count), _total(memory, workers, count) / 1000
    used = f"{_many(workers, 'host')}: {core:.1f} cores, {gb:.1f} GB"
    source = (
        f"{workers:,} x {cores.at_none:.3f} + {count:,} x {cores.each:.4f} cores; "
        f"{workers:,} x {memory.at_none:.0f} + {count:,} x {memory.each:.2f} MB"
    )
    run_here = workers == 1 and any(run.sessions == count and run.outcome != "INVALID" for run in known.runs)
    return Cell(
        "5",
        row=row,
        column=column,
        guide=guide,
        found=used,
        status=CellStatus.MEASURED if run_here else CellStatus.PROJECTED,
        source=source,
    )


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _total(line: LinearFit, workers: int, count: int) -> float:
    return workers * line.at_none + count * line.each


# -- section 4.3 ------------------------------------------------------------------------------------------------------

KV_SHARE = 0.15
"""Of the weights, for the cache of running answers and the engine itself: what a serving engine wants beside them."""

PRECISION_BITS = {"FP16": 16, "INT8": 8, "INT4": 4}


def ram(known: Measurements) -> Iterator[Cell]:
    """Three cells a row: whether what the guide asks for is enough, and by how much."""
    for row in RAM:
        for column, given_mb in (
            ("minimum", row.minimum_mb),
            ("recommended", row.recommended_mb),
            ("production", row.production_mb),
        ):
            yield _ram_cell(row, column, given_mb, known)


def _ram_cell(row: Ram, column: str, given_mb: int, known: Measurements) -> Cell:
    guide = f"{given_mb / 1000:g} GB"
    if row.parameters_b:
        return _weights_cell(row, column, given_mb)
    needed = _needed_mb(row, known)
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


def _needed_mb(row: Ram, known: Measurements) -> tuple[float, str, CellStatus] | None:
    """What the component takes here, how that is known, and as what."""
    stage = {"VAD (Silero)": "vad", "STT (Whisper)": "stt", "TTS": "tts"}.get(row.component)
    if stage:
        engine = known.engines.get(stage)
        return (
            (engine.memory_mb, f"our {stage} engine in a process of its own", CellStatus.MEASURED) if engine else None
        )
    line = known.memory_line
    if line is None:
        return None
    count = known.furthest if row.component == "LiveKit Server" else max(JOBS_PER_WORKER)
    source = (
        f"our host, server and worker in one, of {count} sessions: {line.at_none:.0f} + {count} x {line.each:.2f} MB"
    )
    return line.at(count), source, CellStatus.PROJECTED


def _weights_cell(row: Ram, column: str, given_mb: int) -> Cell:
    """A model larger than any here: by the arithmetic of its weights."""
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
