"""Tests of the retry budget of each caller, and of the pauses that a backend asks for."""

from __future__ import annotations

import pytest

from rejoinder.core.resilience.retry_limits import LONGEST_PAUSE_S, BackendPauses, RetryBudget


def test_a_caller_has_a_burst_and_then_a_rate() -> None:
    """`reserve_s` returns a wait of 0 s for six retries at once, then 2 s more for each further retry."""
    budget = RetryBudget()
    assert [budget.reserve_s("a", 0.0) for _ in range(9)] == [0, 0, 0, 0, 0, 0, 2, 4, 6]


def test_a_retry_that_cannot_wait_is_refused() -> None:
    """`try_spend` returns False without waiting if the caller has used all its retries.

    A caller earns one retry every 2 s, and has at most six.
    """
    budget = RetryBudget()
    assert [budget.try_spend("a", 0.0) for _ in range(7)] == [True] * 6 + [False]
    assert not budget.try_spend("a", 1.9)
    assert budget.try_spend("a", 2.0)
    assert [budget.try_spend("a", 100.0) for _ in range(7)] == [True] * 6 + [False]


def test_callers_have_their_own_budgets() -> None:
    """A caller without retries left does not use up another caller's retries.

    `len` is the number of callers whose budget is not full; the others are forgotten.
    """
    budget = RetryBudget()
    for _ in range(6):
        budget.try_spend("a", 0.0)
    assert budget.try_spend("b", 0.0)
    assert not budget.try_spend("a", 0.0)
    assert len(budget) == 2
    budget.try_spend("c", 1000.0)
    assert len(budget) == 1


def test_a_pause_belongs_to_a_backend_and_ends() -> None:
    """A pause applies to one backend and counts from its refusal. A shorter pause asked for later does not shorten it.

    A pause of an hour is limited to LONGEST_PAUSE_S.
    """
    pauses = BackendPauses()
    assert pauses.wait_s(0, 5.0) == 0
    pauses.refused(0, 20.0, 5.0)
    pauses.refused(0, 1.0, 6.0)
    assert pauses.wait_s(0, 10.0) == pytest.approx(15)
    assert pauses.wait_s(1, 10.0) == 0
    assert pauses.wait_s(0, 25.0) == 0
    pauses.refused(1, 3600.0, 0.0)
    assert pauses.wait_s(1, 0.0) == LONGEST_PAUSE_S
