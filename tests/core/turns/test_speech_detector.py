"""Speech edges out of window probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio.pcm import VAD_WINDOW
from rejoinder.core.settings.settings import SpeechSettings
from rejoinder.core.turns.speech_detector import (
    GONE_DB,
    HUSH_DB,
    SoftEnd,
    SpeechEvent,
    SpeechPhase,
    SpeechResumed,
    SpeechStarted,
    SpeechState,
    committed,
    silence,
    step,
)

SETTINGS = SpeechSettings(soft_end_ms=96)
streams = st.lists(st.floats(0, 1), max_size=120)


def run(probabilities: list[float]) -> tuple[SpeechState, list[SpeechEvent]]:
    """Feed consecutive windows from the stream's beginning."""
    state = SpeechState()
    events: list[SpeechEvent] = []
    for index, probability in enumerate(probabilities, start=1):
        state, new = step(state, SETTINGS, probability, index * VAD_WINDOW)
        events += new
    return state, events


def windows(pattern: str) -> list[float]:
    """`#` is speech, `.` silence, `~` the doubtful band between the two thresholds."""
    return [{"#": 0.9, ".": 0.05, "~": 0.4}[sign] for sign in pattern]


def test_starts_after_the_minimum_of_speech_and_names_its_first_sample() -> None:
    """Three windows (96 ms) open a turn; `at` is where they began."""
    assert run(windows("..##"))[1] == []
    assert run(windows("..###"))[1] == [SpeechStarted(2 * VAD_WINDOW)]


def test_a_click_opens_nothing() -> None:
    """Speech that is not consecutive for the minimum is forgotten."""
    assert run(windows("##.##.##."))[1] == []


def test_doubt_keeps_speech_but_does_not_open_it() -> None:
    """Between the thresholds a window continues speech and never begins it."""
    assert run(windows("~~~~~~"))[1] == []
    assert run(windows("#~~"))[1] == [SpeechStarted(0)]


def test_soft_end_tells_where_speech_ended_and_when_it_was_known() -> None:
    """Three windows of silence (96 ms) after speech; `speech_end` is the end of the last speech window."""
    assert run(windows("####.."))[1] == [SpeechStarted(0)]
    assert run(windows("####..."))[1][1:] == [SoftEnd(4 * VAD_WINDOW, 7 * VAD_WINDOW)]


def test_a_short_pause_is_part_of_speech() -> None:
    """A pause below the soft end moves no edge."""
    state, events = run(windows("####..##"))
    assert events == [SpeechStarted(0)]
    assert (state.phase, state.speech_end) == (SpeechPhase.SPEECH, 8 * VAD_WINDOW)


def test_resuming_takes_two_windows() -> None:
    """After a soft end 64 ms of speech go on with the turn, from their first sample."""
    assert run(windows("####...#"))[1][2:] == []
    assert run(windows("####...##"))[1][2:] == [SpeechResumed(7 * VAD_WINDOW)]


def test_a_noise_after_the_soft_end_does_not_extend_the_silence() -> None:
    """One window that is not believed leaves `speech_end`, and so the commit, where they were."""
    state, events = run(windows("####...#.."))
    assert len(events) == 2
    assert silence(state, 10 * VAD_WINDOW) == 6 * VAD_WINDOW


def test_after_a_commit_speech_is_a_new_start() -> None:
    """`committed` closes the turn: what follows starts instead of resuming."""
    state, _ = run(windows("####..."))
    state = committed(state)
    events: list[SpeechEvent] = []
    for index in range(8, 11):
        state, new = step(state, SETTINGS, 0.9, index * VAD_WINDOW)
        events += new
    assert events == [SpeechStarted(7 * VAD_WINDOW)]


def test_a_commit_keeps_the_run_that_has_just_begun() -> None:
    """Speech that began right before the commit keeps its first sample in the next turn."""
    state, _ = run(windows("####...#"))
    state, _ = step(committed(state), SETTINGS, 0.9, 9 * VAD_WINDOW)
    assert step(state, SETTINGS, 0.9, 10 * VAD_WINDOW)[1] == (SpeechStarted(7 * VAD_WINDOW),)


@given(streams)
def test_edges_alternate(probabilities: list[float]) -> None:
    """A start comes first and once; then soft ends and resumptions take turns."""
    kinds = [type(event) for event in run(probabilities)[1]]
    assert kinds[:1] in ([], [SpeechStarted])
    assert SpeechStarted not in kinds[1:]
    assert all(before is not after for before, after in pairwise(kinds[1:]))
    assert kinds[1:2] in ([], [SoftEnd])


@given(streams)
def test_edges_lie_in_the_past_and_in_order(probabilities: list[float]) -> None:
    """Positions never run backwards, and an end is known at least the soft end after it."""
    state, events = run(probabilities)
    edges = [event.speech_end if isinstance(event, SoftEnd) else event.at for event in events]
    assert edges == sorted(edges)
    assert all(
        event.at - event.speech_end >= SETTINGS.soft_end_ms * 16 for event in events if isinstance(event, SoftEnd)
    )
    assert silence(state, len(probabilities) * VAD_WINDOW) >= 0


@given(streams)
def test_speech_ends_at_a_window_that_held_speech(probabilities: list[float]) -> None:
    """`speech_end` is the end of a window at or above the release threshold; all after it were below the other."""
    for event in run(probabilities)[1]:
        if isinstance(event, SoftEnd):
            last = event.speech_end // VAD_WINDOW
            assert probabilities[last - 1] >= SETTINGS.release_threshold
            assert all(p < SETTINGS.threshold for p in probabilities[last : event.at // VAD_WINDOW])


# -- loudness ----------------------------------------------------------------------------------------------------------

LOUD, HUSHED, MURMUR = 1.0, 10 ** (-(HUSH_DB + 1) / 10), 10 ** (-(HUSH_DB - 6) / 10)
GONE, DIGITAL_SILENCE = 10 ** (-(GONE_DB + 1) / 10), 0.0


def heard(windows: Sequence[tuple[float, float | None]]) -> list[SpeechEvent]:
    """The edges of windows of (probability, power)."""
    state = SpeechState()
    events: list[SpeechEvent] = []
    for number, (probability, power) in enumerate(windows, start=1):
        state, found = step(
            state, settings=SETTINGS, probability=probability, window_end=number * VAD_WINDOW, power=power
        )
        events += found
    return events


def test_a_hushed_window_needs_a_higher_probability() -> None:
    """The sound is gone while the detector still says speech: the end is where the sound ended, and known sooner."""
    speech = [(0.9, LOUD)] * 10
    tail = [(0.55, HUSHED), (0.45, HUSHED), (0.3, HUSHED), (0.1, HUSHED)]
    assert heard([*speech, *tail])[1] == SoftEnd(10 * VAD_WINDOW, 13 * VAD_WINDOW)
    spoken_on = [(probability, MURMUR) for probability, _ in tail]
    assert heard([*speech, *spoken_on, (0.1, MURMUR)])[1:] == [SoftEnd(12 * VAD_WINDOW, 15 * VAD_WINDOW)]


def test_what_is_surely_speech_is_speech_however_soft() -> None:
    """A soft voice behind a loud one counts by its probability, and becomes the measure itself with time."""
    assert len(heard([(0.9, LOUD)] * 10 + [(0.7, HUSHED)] * 20)) == 1
    assert len(heard([(0.9, LOUD)] * 10 + [(0.7, HUSHED)] * 200 + [(0.45, HUSHED)] * 20)) == 1


@pytest.mark.parametrize("power", [GONE, DIGITAL_SILENCE])
def test_where_nothing_is_left_of_the_sound_only_certainty_is_speech(power: float) -> None:
    """The detector's memory of a word is no speech; within one it is certain, and silence is part of it."""
    speech = [(0.99, LOUD)] * 10
    assert heard([*speech, *[(0.95, power)] * 3])[1:] == [SoftEnd(10 * VAD_WINDOW, 13 * VAD_WINDOW)]
    assert heard([*speech, *[(0.95, HUSHED)] * 3])[1:] == []
    assert heard([*speech, *[(0.99, power)] * 3])[1:] == []


def dips(windows: Sequence[tuple[float, float | None]]) -> list[int | None]:
    """Since which window the sound has been low, behind each of them."""
    state = SpeechState()
    found: list[int | None] = []
    for number, (probability, power) in enumerate(windows, start=1):
        state, _ = step(state, settings=SETTINGS, probability=probability, window_end=number * VAD_WINDOW, power=power)
        found.append(None if state.dip is None else state.dip // VAD_WINDOW)
    return found


def test_a_dip_is_known_at_its_first_window_and_lasts_until_the_sound_returns() -> None:
    """Speech throughout for the detector; the soft end behind it changes nothing about when the dip began."""
    speech, low = [(0.9, LOUD)] * 10, [(0.9, MURMUR)] * 3
    assert dips([*speech, *low, (0.9, LOUD)]) == [None] * 10 + [11] * 3 + [None]
    assert dips([*speech, *low, *[(0.1, GONE)] * 4]) == [None] * 10 + [11] * 7


def test_silence_before_speech_and_after_the_turn_is_no_dip() -> None:
    """Where nobody has begun to speak, nothing can fall."""
    assert dips([(0.1, GONE)] * 5) == [None] * 5
    state = SpeechState()
    for number, (probability, power) in enumerate([(0.9, LOUD)] * 10 + [(0.1, GONE)] * 3, start=1):
        state, _ = step(state, settings=SETTINGS, probability=probability, window_end=number * VAD_WINDOW, power=power)
    state, _ = step(committed(state), settings=SETTINGS, probability=0.1, window_end=14 * VAD_WINDOW, power=GONE)
    assert state.dip is None


def test_without_loudness_nothing_dips() -> None:
    """Probabilities alone do not say how loud it was."""
    assert dips([(0.9, LOUD)] * 10 + [(0.1, None)] * 5) == [None] * 15


@given(streams)
def test_without_loudness_probabilities_decide(probabilities: list[float]) -> None:
    """Who does not know a window's power gets the edges that equal loudness gives."""
    assert heard([(probability, None) for probability in probabilities]) == heard(
        [(probability, LOUD) for probability in probabilities]
    )
