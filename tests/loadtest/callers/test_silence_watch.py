"""Tests of the watch over a silent server, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.callers.silence_watch import LOOK_S, PING_S, SILENT_S, ServerWatch, SilenceStep


@pytest.mark.parametrize("look_s", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("dies_at", [0.0, 0.9, 2.5, 7.0])
def test_a_server_that_dies_is_left_after_three_seconds(look_s: float, dies_at: float) -> None:
    """A server that answers pings until it dies is left SILENT_S after its last sign of life, at the next check."""
    watch, heard, now = ServerWatch(0.0), 0.0, 0.0
    while (step := watch.check(now)) is not SilenceStep.LOST:
        if step is SilenceStep.PING and now < dies_at:
            watch.heard()
            heard = now
        now = round(now + look_s, 3)
        assert now < 20
    assert SILENT_S <= now - heard <= SILENT_S + look_s + 1e-6


@given(st.lists(st.floats(0.01, LOOK_S), min_size=20, max_size=60), st.floats(0.0, SILENT_S - PING_S - 0.01))
def test_a_server_that_answers_is_kept(looks: list[float], delay_s: float) -> None:
    """A server that answers every ping within a second is never left, however often the client checks.

    The answer is noticed before the check that follows it.
    """
    watch, now, answer_at = ServerWatch(0.0), 0.0, float("inf")
    for look_s in looks:
        now += look_s
        if now >= answer_at:
            watch.heard()
            answer_at = float("inf")
        step = watch.check(now)
        assert step is not SilenceStep.LOST
        if step is SilenceStep.PING:
            answer_at = now + delay_s


def test_the_clients_own_pause_is_not_held_against_the_server() -> None:
    """After a minute in which the client did not run, the server gets a ping and not a farewell."""
    watch = ServerWatch(0.0)
    assert watch.check(60.0) is SilenceStep.PING
    assert watch.check(61.0) is SilenceStep.NOTHING
