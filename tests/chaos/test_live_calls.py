"""Tests of how the chaos suite measures silence and recovery."""

from __future__ import annotations

import pytest

from tests.chaos.live_calls import Newcomers, longest_gap_s, playing, slowest_sound_s
from tests.chaos.rows import Row
from tests.chaos.system import Observation


def test_audio_plays_when_it_arrives_or_after_the_audio_before() -> None:
    """A delta plays at once, unless the one before still plays."""
    assert list(playing([(1.0, 0.5), (1.1, 0.5), (3.0, 1.0)])) == [(1.0, 1.5), (1.5, 2.0), (3.0, 4.0)]


@pytest.mark.parametrize(
    ("waits", "audible", "since", "gap"),
    [
        ([(0.0, 5.0)], [(1.0, 3.0), (4.0, 5.0)], 0.0, 1.0),
        ([(0.0, 5.0)], [(1.0, 3.0), (4.5, 5.0)], 0.0, 1.5),
        ([(0.0, 5.0)], [(3.0, 5.0)], 2.0, 1.0),  # what was before the fault does not count
        ([(0.0, 5.0)], [(0.5, 1.0)], 2.0, 3.0),  # nothing came after the fault
        ([(0.0, 5.0)], [(0.0, 5.0)], 0.0, 0.0),
        ([(0.0, 1.0), (8.0, 9.0)], [(0.5, 1.0), (8.2, 9.0)], 0.0, 0.5),  # between the waits the caller speaks
    ],
)
def test_the_longest_gap_is_the_longest_time_without_audio(
    waits: list[tuple[float, float]], audible: list[tuple[float, float]], since: float, gap: float
) -> None:
    """Only silence after the fault counts, and only while the caller waits for an answer or hears one."""
    assert longest_gap_s(waits, audible, since) == pytest.approx(gap)


def test_the_first_sound_of_a_wait_ends_it() -> None:
    """Silence after an apology is no wait for a sound. A wait without a sound lasts until its end."""
    apology = [(1.2, 2.0), (9.0, 10.0)]
    assert slowest_sound_s([(0.0, 10.0)], apology, 0.0) == pytest.approx(1.2)
    assert slowest_sound_s([(0.0, 10.0)], apology, 1.5) == 0.0
    assert slowest_sound_s([(0.0, 10.0)], apology, 3.0) == pytest.approx(6.0)
    assert slowest_sound_s([(0.0, 1.0), (11.0, 12.5)], apology, 0.5) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("attempts", "recovery"),
    [
        ([(8.0, 8.1), (9.0, 9.1), (10.5, 10.6)], 0.0),
        ([(9.0, 9.1), (10.1, None), (10.6, None), (11.1, 12.0), (11.6, 11.8)], 2.0),
        ([(9.0, 9.1), (10.1, None), (10.6, None)], None),
        ([(9.9, None), (10.4, 10.5)], 0.0),  # began before the fault, so it is no new call
    ],
)
def test_new_calls_have_recovered_after_the_last_failure(
    attempts: list[tuple[float, float | None]], recovery: float | None
) -> None:
    """The time of recovery is that of the first answer after the last call that was not answered."""
    found = Newcomers("", attempts).recovery_s(10.0)
    assert found == (recovery if recovery is None else pytest.approx(recovery))


def test_a_row_names_the_bounds_that_are_broken() -> None:
    """Each broken bound is named. New calls that are never answered again break theirs."""
    row = Row("host", kill=True, watch_s=1, cut=1, silence_s=2.0, recovery_s=3.0)
    assert row.broken(Observation(4, 1, 0.5, silence_s=2.0, unanswered=0, recovery_s=3.0)) == []
    broken = row.broken(Observation(4, 2, 0.5, silence_s=2.5, unanswered=1, recovery_s=None))
    assert [text.split()[0] for text in broken] == ["2", "2.5", "1", "new"]
