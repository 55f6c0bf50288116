"""Tests of the comparison of two load runs: what it shows, what it leaves open, and how often it is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loadtest.judging.comparison import Change, compare
from loadtest.results.histograms import encoded
from rejoinder.core.errors import ConfigError


def document(values_ms: np.ndarray, **change: Any) -> dict[str, Any]:
    """Return the result of a run with these voice-to-voice latencies, as JSON. `change` replaces keys."""
    figures = {f"p{percent}_ms": float(np.percentile(values_ms, percent)) for percent in (50, 95)}
    latency = {**figures, "histogram": encoded((values_ms / 1000).tolist())}
    counts = {"sessions_opened": 40, "turns": len(values_ms)}
    whole = {"latencies": {"voice_to_voice": latency}, "counts": counts, "outcome": "PASS", "engines": {"llm": "x"}}
    return whole | {"schedule_sha256": "a"} | change


def latencies(seed: int, median_ms: float = 500.0, turns: int = 400) -> np.ndarray:
    return median_ms * np.exp(0.3 * np.random.default_rng(seed).standard_normal(turns))


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Change]:
    return {found.name: found.change for found in compare(before, after).differences}


def test_a_slower_run_is_worse_and_a_faster_one_better() -> None:
    """With 400 turns each, a difference of 30% is shown at p50 and at p95, in both directions."""
    slow, fast = document(latencies(1, 650)), document(latencies(2, 500))
    assert {changes(fast, slow)[name] for name in ("voice_to_voice p50", "voice_to_voice p95")} == {Change.WORSE}
    assert {changes(slow, fast)[name] for name in ("voice_to_voice p50", "voice_to_voice p95")} == {Change.BETTER}


def test_equal_systems_differ_in_about_one_run_of_twenty() -> None:
    """Of 60 pairs of runs of the same system, the median is said to differ in at most 10%: the confidence is 95%."""
    pairs = [(document(latencies(2 * seed)), document(latencies(2 * seed + 1))) for seed in range(60)]
    wrong = sum(changes(*pair)["voice_to_voice p50"] is not Change.NOT_SHOWN for pair in pairs)
    assert wrong <= 6


def test_shares_are_compared_with_newcombes_interval() -> None:
    """The published example (56 of 70 against 48 of 80) has the interval 5.24% to 33.39%."""
    first = document(latencies(1), counts={"sessions_opened": 1, "turns": 80, "cut_off": 48})
    second = document(latencies(1), counts={"sessions_opened": 1, "turns": 70, "cut_off": 56})
    (found,) = [row for row in compare(first, second).differences if row.name == "turns cut off"]
    assert (found.low, found.high) == pytest.approx((5.24, 33.39), abs=0.01)
    assert found.change is Change.WORSE


def test_another_background_is_named() -> None:
    """Noise and lost packets change latencies, so a comparison with a quiet run says so."""
    noisy = document(latencies(1), scenario={"background": "noise", "snr_db": 10.0, "loss": 0.0})
    quiet = document(latencies(1), scenario={"background": "none", "snr_db": 10.0, "loss": 0.0})
    assert compare(quiet, noisy).warnings == ("The callers' background differs: none and noise.",)


def test_what_else_differs_is_named() -> None:
    """Another schedule, another engine and an invalid run are named, because the difference may come from them."""
    other = document(latencies(1), schedule_sha256="b", engines={"llm": "y"}, outcome="INVALID")
    warnings = " ".join(compare(document(latencies(1)), other).warnings)
    assert "schedules differ" in warnings
    assert "The engine of llm differs: x and y." in warnings
    assert "Run B is INVALID" in warnings


def test_other_documents_are_refused() -> None:
    """A JSON document that is not the result of a load run is refused with the number of the file."""
    with pytest.raises(ConfigError, match="not the result of a load run") as refused:
        compare(document(latencies(1)), {"plan": 1})
    assert refused.value.field == "B"
