"""Tests of what becomes of a system whose Ray head has lost a process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.resilience.head_fate import HeadFate, HeadState, HeadVerdict

GONE = HeadState(gcs=False, calls=3)


def test_calls_go_on_without_the_gcs_until_none_is_left() -> None:
    """Without the GCS a system ends when its last call ends, or after `calls_go_on_s`."""
    fate = HeadFate(50.0)
    assert fate.step(HeadState(calls=0), 0.0) is HeadVerdict.RUNNING
    assert fate.step(GONE, 1.0) is HeadVerdict.ENDING
    assert fate.step(HeadState(gcs=False), 50.9) is HeadVerdict.ENDING, "an unknown number of calls may be some"
    assert fate.step(HeadState(gcs=False, calls=0), 50.9) is HeadVerdict.ENDED
    assert fate.step(GONE, 51.0) is HeadVerdict.ENDED


def test_a_gcs_that_comes_back_has_its_whole_time_again() -> None:
    """With Redis the GCS starts again. The time without it then counts from its next end."""
    fate = HeadFate(50.0)
    assert fate.step(GONE, 0.0) is HeadVerdict.ENDING
    assert fate.step(HeadState(), 40.0) is HeadVerdict.RUNNING
    assert fate.step(GONE, 60.0) is HeadVerdict.ENDING
    assert fate.step(GONE, 109.0) is HeadVerdict.ENDING
    assert fate.step(GONE, 110.0) is HeadVerdict.ENDED


@given(st.booleans(), st.none() | st.integers(0, 9), st.floats(0, 100))
def test_without_its_raylet_a_head_has_ended(gcs: bool, calls: int | None, now: float) -> None:
    """Without the raylet turns go unanswered, so nothing is waited for."""
    assert HeadFate(50.0).step(HeadState(gcs=gcs, raylet=False, calls=calls), now) is HeadVerdict.ENDED
