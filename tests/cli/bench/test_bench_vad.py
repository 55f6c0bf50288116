"""Tests of the results of `rejoinder bench vad`, which compares voice activity detection in the host and outside.

A row is the result for one placement ("inline", in the host, or "deployment") and one number of windows per batch.
"""

from __future__ import annotations

import pytest

from rejoinder.cli.bench.vad import row, table
from tests.cli.printing import printed_rows


def test_a_row_has_the_median_the_95th_percentile_and_the_mean_cpu_time() -> None:
    """A row has the median and the 95th percentile of the wait for a batch, and the mean CPU time of a batch, in ms.

    The 95th percentile is one of the measured waits, not interpolated.
    """
    times = [(tick / 1000, 0.002) for tick in range(20, 0, -1)]
    assert row(4, "inline", times) == {
        "windows": 4,
        "placement": "inline",
        "ms": pytest.approx(10.5),
        "p95_ms": 19.0,
        "cpu_ms": 2.0,
    }


def test_the_table_compares_cpu_time_with_the_same_batch_inline() -> None:
    """The last column is the CPU time divided by that of the placement "inline" with the same number of windows."""
    rows = [
        row(windows, placement, [(0.001, cpu_s)] * 20)
        for windows, placement, cpu_s in (
            (1, "inline", 0.001),
            (1, "deployment", 0.0025),
            (16, "inline", 0.004),
            (16, "deployment", 0.002),
        )
    ]
    assert [(cells[0], cells[1], cells[-1]) for cells in printed_rows(table(rows))] == [
        ("1", "inline", "1.0x"),
        ("1", "deployment", "2.5x"),
        ("16", "inline", "1.0x"),
        ("16", "deployment", "0.5x"),
    ]
