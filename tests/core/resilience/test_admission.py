"""Tests of admission: a call is refused if all places are taken, or if the event loop has lagged for some time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.admission import LOOKS, Admission, AdmissionRefusal


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
