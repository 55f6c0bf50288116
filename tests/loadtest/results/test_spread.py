"""Tests of the median, p95, smallest and largest value of many turns' latencies."""

from __future__ import annotations

import pytest

from loadtest.results.spread import spread, spreads
from loadtest.results.turn_record import unanswered_record


def test_the_95th_percentile_is_a_value_that_was_measured() -> None:
    """The 95th percentile is the nineteenth of twenty values, and the value itself if there is only one."""
    values = [float(value) for value in range(1, 21)]
    result = spread(values[::-1])
    assert (result.count, result.median_ms, result.p95_ms, result.least_ms, result.most_ms) == (20, 10.5, 19, 1, 20)
    assert spread([7.0]).p95_ms == 7.0


def test_no_values_have_no_spread() -> None:
    """`spread` of an empty list raises ValueError. `spreads` of turns without latencies is an empty mapping."""
    with pytest.raises(ValueError, match="no values"):
        spread([])
    assert spreads([unanswered_record("a.wav", None, 1)]) == {}
