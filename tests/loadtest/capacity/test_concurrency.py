"""Tests of the guide's concurrency tables: each cell gets a status from our measurements, or "not known"."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.capacity.concurrency import (
    Cell,
    CellStatus,
    ConcurrencyRun,
    MeasuredEngine,
    Measurements,
    Quantized,
    ram,
    sessions,
)
from loadtest.capacity.footprint import LinearFit, fit_line
from loadtest.capacity.hardware_cells import gpus, placement, quantization
from rejoinder.core.capacity.hardware import GPUS, PLACEMENTS, RAM, SESSION_ROWS

KNOWN = Measurements(
    engines={
        "vad": MeasuredEngine(46, 0.14, 236), "stt": MeasuredEngine(190, 270, 17),
        "llm": MeasuredEngine(140, 670, 48), "tts": MeasuredEngine(130, 320, 13),
    },
    quantized=[Quantized("whisper-base", 1.7, -0.002, "w"), Quantized("smollm2", 3.2, 0.15, "s")],
    runs=[
        ConcurrencyRun(10, outcome="PASS", p95_ms=700, host_cores=0.1, host_memory_mb=300),
        ConcurrencyRun(100, outcome="FAIL", p95_ms=2600, host_cores=0.9, host_memory_mb=480),
    ],
    cores_line=LinearFit(0.02, 0.009),
    memory_line=LinearFit(280, 2.0),
    cores=2,
)  # fmt: skip
WITHOUT_SERVER = replace(KNOWN, runs=[], cores_line=None, memory_line=None)


def cell(cells: list[Cell], row: str, column: str) -> Cell:
    return next(cell for cell in cells if (cell.row, cell.column) == (row, column))


def every(known: Measurements) -> list[Cell]:
    parts = (sessions(known), placement(known), gpus(), quantization(known), ram(known))
    return [cell for part in parts for cell in part]


def test_every_cell_of_the_guide_is_there() -> None:
    """Each table has all of the guide's rows and columns."""
    assert len(list(placement(KNOWN))) == 2 * len(PLACEMENTS)
    assert len(list(gpus())) == 3 * len(GPUS)
    assert len(list(quantization(KNOWN))) == 2 * 3 + 2 * 2
    assert len(list(ram(KNOWN))) == 3 * len(RAM)
    assert len(list(sessions(KNOWN))) == 4 * len(SESSION_ROWS)


@pytest.mark.parametrize("known", [KNOWN, WITHOUT_SERVER], ids=["with a server", "without"])
def test_every_cell_has_a_source(known: Measurements) -> None:
    """Each cell has a source. If the guide's figure is not met, the cell names a configuration that meets it.

    Without measurements of a running server, every cell of the table of sessions is "not known".
    """
    for found in every(known):
        assert found.source
        assert bool(found.would) >= (found.status is CellStatus.FAILS)
        assert "nan" not in found.found
    if known is WITHOUT_SERVER:
        assert {found.status for found in sessions(known)} == {CellStatus.UNKNOWN}


def test_the_status_follows_the_run() -> None:
    """The cell of a number of sessions whose load run passed is "measured". If the run failed, it "does not hold".

    1,000 sessions were not run. By projection they do not fit on one machine. The cell says that 7 machines are needed.
    """
    cells = list(sessions(KNOWN))
    assert cell(cells, "10 sessions", "held on one machine").status is CellStatus.MEASURED
    assert cell(cells, "100 sessions", "held on one machine").status is CellStatus.FAILS
    thousand = cell(cells, "1,000 sessions", "held on one machine")
    assert thousand.status is CellStatus.FAILS
    assert (
        "7 machines" in thousand.would
    )  # (0.02 cores + 1,000 sessions x 0.009) / 0.7, the maximum use of a core, are 12.9 cores


def test_an_invalid_run_is_not_a_failure() -> None:
    """The cell of an INVALID run is "not known", and its source is the failed self-check of the load generator."""
    known = replace(
        KNOWN,
        runs=[
            ConcurrencyRun(
                10, outcome="INVALID", p95_ms=None, host_cores=0.1, host_memory_mb=300, causes=("send lateness 9 ms",)
            )
        ],
    )
    found = cell(list(sessions(known)), "10 sessions", "held on one machine")
    assert (found.status, found.source) == (CellStatus.UNKNOWN, "send lateness 9 ms")


def test_workers_are_arithmetic() -> None:
    """100 sessions with 20 jobs (sessions) per worker need 5 workers, which are 5 hosts here.

    The cell's source shows how their cores and memory are computed.
    """
    found = cell(list(sessions(KNOWN)), "100 sessions", "20 jobs a worker")
    assert found.guide == "5 workers of 20 jobs"
    assert found.found == "5 hosts: 1.0 cores, 1.6 GB"
    assert found.source == "5 x 0.020 + 100 x 0.0090 cores; 5 x 280 + 100 x 2.00 MB"
    assert found.status is CellStatus.PROJECTED
    assert cell(list(sessions(KNOWN)), "10 sessions", "10 jobs a worker").status is CellStatus.MEASURED


def test_quantization_is_judged_by_its_own_measurement() -> None:
    """The guide states a speed-up of 3 to 4 and an error of 1 to 2% for INT8. Each model has its own cells.

    A measured speed-up of 1.7 or an error of 15% "does not hold". A speed-up of 3.2 or an error of -0.2% is "measured".
    """
    cells = list(quantization(KNOWN))
    assert cell(cells, "INT8", "speed-up, whisper-base").status is CellStatus.FAILS
    assert cell(cells, "INT8", "error, whisper-base").status is CellStatus.MEASURED
    assert cell(cells, "INT8", "speed-up, smollm2").status is CellStatus.MEASURED
    assert cell(cells, "INT8", "error, smollm2").status is CellStatus.FAILS


def test_a_card_is_ranked_by_its_bandwidth() -> None:
    """The L4's cell does not hold: the guide puts it above the A10G and T4, which have more memory bandwidth."""
    cells = list(gpus())
    assert cell(cells, "L4", "tokens/s").status is CellStatus.FAILS
    assert "A10G and T4" in cell(cells, "L4", "tokens/s").would
    assert cell(cells, "H100", "tokens/s").status is CellStatus.PROJECTED


def test_memory_of_large_models_is_arithmetic() -> None:
    """For a 70B model, the guide's minimum and recommended memory "do not hold", and its production memory does.

    The first two cells name the quantized weights that would fit.
    """
    cells = list(ram(KNOWN))
    seventy = [cell(cells, "LLM (70B model)", column).status for column in ("minimum", "recommended", "production")]
    assert seventy == [CellStatus.FAILS, CellStatus.FAILS, CellStatus.PROJECTED]
    assert cell(cells, "LLM (70B model)", "minimum").would == "INT4 weights"
    assert cell(cells, "LLM (70B model)", "recommended").would == "INT8 or INT4 weights"
    assert cell(cells, "STT (Whisper)", "minimum").found == "enough: 190 MB, 21x"


def test_lines_are_not_negative() -> None:
    """`fit_line` returns a constant for values that fall with the number of sessions: its slope is never negative.

    A line that would be below 0 at 0 sessions goes through 0 instead.
    """
    assert fit_line([10, 20], [3, 2]) == LinearFit(2.5, 0.0)
    assert fit_line([10, 20], [1, 4]).at_none == 0
    assert fit_line([10, 20, 30], [1.5, 2.5, 3.5]).at(40) == pytest.approx(4.5)
    assert fit_line([10], [2]).at(5) == pytest.approx(1)
