"""Tests of the token bucket: the rate holds over any time, bursts pass, and debts are paid."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.access.token_bucket import TokenBucket


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200), st.floats(0.5, 50), st.integers(1, 40))
def test_no_window_exceeds_the_burst_and_the_rate(pauses: list[float], rate: float, burst: int) -> None:
    """In every window of time, at most the burst and the rate times the window's length are taken."""
    bucket, now, taken = TokenBucket(rate, burst), 0.0, []
    for pause in pauses:
        now += pause
        if bucket.take(now):
            taken.append(now)
    for number, start in enumerate(taken):
        for count, end in enumerate(taken[number:], 1):
            assert count <= burst + rate * (end - start) + 1e-6


def test_a_burst_passes_and_then_the_rate() -> None:
    """A full bucket of 5 tokens gives 5 at once, then one each half second at a rate of 2 a second."""
    bucket = TokenBucket(2, 5)
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert not bucket.take(0.49)
    assert bucket.take(0.5)
    assert not bucket.take(0.5)


@given(st.floats(0, 2e9), st.sampled_from([0.1, 3.0, 10.0, 250.0]), st.integers(1, 3000))
def test_a_burst_is_exact_at_any_time(now: float, rate: float, burst: int) -> None:
    """A full bucket gives exactly its burst at once: at the start of a machine, and in seconds since 1970."""
    bucket = TokenBucket(rate, burst)
    assert sum(bucket.take(now) for _ in range(burst + 2)) == burst


def test_a_debt_is_waited_for() -> None:
    """After 30 of 10 tokens were spent, at 10 a second, the bucket has no debt after 2 s and a token after 2.1 s."""
    bucket = TokenBucket(10, 10)
    bucket.spend(7.0, 30)
    assert abs(bucket.wait_s(7.0) - 2.0) < 1e-9
    assert abs(bucket.wait_s(7.0, 1) - 2.1) < 1e-9
    assert not bucket.take(9.0)
    assert bucket.take(9.11)
