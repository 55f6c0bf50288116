"""Tests of the verdict, the table and the JSON of `rejoinder bench cache`."""

from __future__ import annotations

import pytest

from loadtest.results.spread import spread
from rejoinder.cli.bench.cache import CacheResults, CacheRow, table
from tests.cli.printing import printed_rows

FAST, SLOW = spread([5.0] * 19 + [8.0]), spread([5.0] * 10 + [60.0] * 10)


@pytest.mark.parametrize(("hit", "found", "holds"), [(FAST, True, True), (FAST, False, False), (SLOW, True, False)])
def test_it_holds_if_every_hit_was_found_in_time(hit: object, found: bool, holds: bool) -> None:
    """The verdict is positive if every hit was found and its p95 is within the limit, whatever the model's time."""
    rows = [CacheRow("hit, equal question", hit, found), CacheRow("language model, first token", SLOW)]  # type: ignore[arg-type]
    assert CacheResults(rows, {}).holds is holds


def test_a_row_has_its_count_and_times() -> None:
    """The table and the JSON have the count, the median, the 95th percentile and the maximum of each row, in ms."""
    row = CacheRow("hit, paraphrase", FAST)
    assert row.document() == {
        "what": "hit, paraphrase",
        "count": 20,
        "found": True,
        "ms": 5.0,
        "p95_ms": 5.0,
        "most_ms": 8.0,
    }
    assert printed_rows(table(CacheResults([row], {}))) == [
        ["hit, paraphrase", "20", "5.0", "5.0", "8.0", "as expected"]
    ]
