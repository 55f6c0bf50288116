"""Tests of admission: a call is refused if all places are taken, or if the event loop has lagged for some time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.admission import (
    ENDS_S,
    LOOKS,
    MAX_RETRY_AFTER_S,
    Admission,
    AdmissionRefusal,
    FreePlaces,
)


def test_places_limit_the_calls() -> None:
    """A call is admitted while fewer calls than places are running, and else refused as FULL."""
    admission = Admission(3, 0.1)
    assert [admission.refusal(taken) for taken in (0, 2, 3, 4)] == [
        None,
        None,
        AdmissionRefusal.FULL,
        AdmissionRefusal.FULL,
    ]


@given(st.lists(st.floats(0, 1), max_size=20))
def test_only_lasting_lag_refuses(lags: list[float]) -> None:
    """A call is refused as LATE only if each of the last LOOKS measured lags of the event loop exceeds the limit.

    `lag_s` is the newest measured lag in seconds.
    """
    admission = Admission(10, 0.1)
    for lag_s in lags:
        admission.note(lag_s)
    recent = lags[-LOOKS:]
    late = len(recent) == LOOKS and all(lag_s > 0.1 for lag_s in recent)
    assert (admission.refusal(0) is AdmissionRefusal.LATE) == late
    assert admission.lag_s == (lags[-1] if lags else 0.0)


def test_a_place_is_expected_at_the_rate_at_which_calls_end() -> None:
    """With a call that ends every 2 s, the next place is expected after 2 s."""
    places = FreePlaces()
    places.occupied(100.0)
    for step in range(1, 101):
        places.ended(100.0 + 2 * step)
    assert places.wait_s(300.0) == pytest.approx(2.0, rel=0.05)


def test_the_wait_grows_while_no_call_ends() -> None:
    """If no call has ended since the first one began, a place is expected after as long again, at most a minute."""
    places = FreePlaces()
    places.occupied(100.0)
    assert [places.wait_s(now) for now in (100.0, 103.0, 120.0, 1000.0)] == [0.0, 3.0, 20.0, MAX_RETRY_AFTER_S]


def test_calls_that_ended_before_the_host_was_empty_do_not_count() -> None:
    """A host that was empty forgets the calls that ended before, and ends older than ENDS_S."""
    places = FreePlaces()
    places.occupied(0.0)
    for _ in range(50):
        places.ended(10.0)
    places.occupied(11.0)
    assert places.wait_s(31.0) == 20.0
    places.ended(31.0)
    assert places.wait_s(31.0 + ENDS_S) == ENDS_S
    assert places.wait_s(31.1 + ENDS_S) == MAX_RETRY_AFTER_S
