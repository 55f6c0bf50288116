"""Tests of admission control: places, and an event loop that is late for long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.admission import LOOKS, Admission, AdmissionRefusal


def test_places_limit_the_calls() -> None:
    """Calls are admitted until all places are taken."""
    admission = Admission(3, 0.1)
    assert [admission.refusal(taken) for taken in (0, 2, 3, 4)] == [
        None,
        None,
        AdmissionRefusal.FULL,
        AdmissionRefusal.FULL,
    ]


@given(st.lists(st.floats(0, 1), max_size=20))
def test_only_lasting_lag_refuses(lags: list[float]) -> None:
    """A call is refused only if every recent measurement is late. `lag_s` is the newest one."""
    admission = Admission(10, 0.1)
    for lag_s in lags:
        admission.note(lag_s)
    recent = lags[-LOOKS:]
    late = len(recent) == LOOKS and all(lag_s > 0.1 for lag_s in recent)
    assert (admission.refusal(0) is AdmissionRefusal.LATE) == late
    assert admission.lag_s == (lags[-1] if lags else 0.0)
