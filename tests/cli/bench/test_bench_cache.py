"""Tests of the verdict, the table and the JSON of `rejoinder bench cache`, which times lookups in the answer cache."""

from __future__ import annotations

import pytest

from loadtest.results.spread import spread
from rejoinder.cli.bench.cache import CacheResults, CacheRow, table
from tests.cli.printing import printed_rows

FAST, SLOW = spread([5.0] * 19 + [8.0]), spread([5.0] * 10 + [60.0] * 10)


@pytest.mark.parametrize(("hit", "found", "holds"), [(FAST, True, True), (FAST, False, False), (SLOW, True, False)])
def test_it_holds_if_every_hit_was_found_in_time(hit: object, found: bool, holds: bool) -> None:
    """The verdict is positive if all lookups that should hit did, and their p95 duration is at most 50 ms.

    The time of the language model, which is measured for comparison, does not count.
    """
    rows = [CacheRow("hit, equal question", hit, found), CacheRow("language model, first token", SLOW)]  # type: ignore[arg-type]
    assert CacheResults(rows, {}).holds is holds


def test_a_row_has_its_count_and_times() -> None:
    """For each kind of lookup, the table and the JSON have the number of lookups and whether they were as expected.

    They also have the median, the 95th percentile and the maximum of the duration in milliseconds.
    """
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
