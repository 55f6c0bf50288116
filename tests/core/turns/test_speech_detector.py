"""Tests of the speech detector, which turns probabilities of speech per window into speech events.

A window has 512 samples (32 ms). The events are SpeechStarted, SoftEnd (a tentative end of speech) and SpeechResumed.
"""

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
    """Return the final state and the speech events of consecutive windows from the start of a call."""
    state = SpeechState()
    events: list[SpeechEvent] = []
    for index, probability in enumerate(probabilities, start=1):
        state, new = step(state, SETTINGS, probability, index * VAD_WINDOW)
        events += new
    return state, events


def windows(pattern: str) -> list[float]:
    """Return one probability per sign: `#` is speech, `.` silence, `~` a value between the two thresholds."""
    return [{"#": 0.9, ".": 0.05, "~": 0.4}[sign] for sign in pattern]


def test_speech_starts_after_its_minimum_length() -> None:
    """Three consecutive windows of speech (96 ms) start speech. `at` is the first sample of these windows."""
    assert run(windows("..##"))[1] == []
    assert run(windows("..###"))[1] == [SpeechStarted(2 * VAD_WINDOW)]


def test_a_click_does_not_start_speech() -> None:
    """Fewer than three consecutive windows of speech do not start speech, however often they occur."""
    assert run(windows("##.##.##."))[1] == []


def test_medium_probabilities_continue_speech_only() -> None:
    """A window with a probability between the thresholds continues speech, but does not begin it."""
    assert run(windows("~~~~~~"))[1] == []
    assert run(windows("#~~"))[1] == [SpeechStarted(0)]


def test_a_soft_end_has_its_sample_and_its_time() -> None:
    """With `soft_end_ms` of 96, the third silent window after speech causes a SoftEnd.

    Its `at` is the sample at the end of that window. Its `speech_end` is the sample at the end of the last window with
    speech.
    """
    assert run(windows("####.."))[1] == [SpeechStarted(0)]
    assert run(windows("####..."))[1][1:] == [SoftEnd(4 * VAD_WINDOW, 7 * VAD_WINDOW)]


def test_a_short_pause_is_part_of_speech() -> None:
    """A pause in speech that is shorter than `soft_end_ms` causes no event."""
    state, events = run(windows("####..##"))
    assert events == [SpeechStarted(0)]
    assert (state.phase, state.speech_end) == (SpeechPhase.SPEECH, 8 * VAD_WINDOW)


def test_resuming_takes_two_windows() -> None:
    """After a SoftEnd, two windows of speech (64 ms) cause SpeechResumed. `at` is the first sample of the first one."""
    assert run(windows("####...#"))[1][2:] == []
    assert run(windows("####...##"))[1][2:] == [SpeechResumed(7 * VAD_WINDOW)]


def test_a_noise_after_the_soft_end_does_not_extend_the_silence() -> None:
    """One window of noise after a SoftEnd does not move `speech_end`, from which the silence is counted."""
    state, events = run(windows("####...#.."))
    assert len(events) == 2
    assert silence(state, 10 * VAD_WINDOW) == 6 * VAD_WINDOW


def test_after_a_commit_speech_is_a_new_start() -> None:
    """After `committed`, which marks the end of a turn, speech causes SpeechStarted and not SpeechResumed."""
    state, _ = run(windows("####..."))
    state = committed(state)
    events: list[SpeechEvent] = []
    for index in range(8, 11):
        state, new = step(state, SETTINGS, 0.9, index * VAD_WINDOW)
        events += new
    assert events == [SpeechStarted(7 * VAD_WINDOW)]


def test_a_commit_keeps_the_run_that_has_just_begun() -> None:
    """Speech that begins just before the commit of a turn starts the next utterance, with its first sample."""
    state, _ = run(windows("####...#"))
    state, _ = step(committed(state), SETTINGS, 0.9, 9 * VAD_WINDOW)
    assert step(state, SETTINGS, 0.9, 10 * VAD_WINDOW)[1] == (SpeechStarted(7 * VAD_WINDOW),)


@given(streams)
def test_edges_alternate(probabilities: list[float]) -> None:
    """Within one turn, the first event is a single SpeechStarted; after it SoftEnd and SpeechResumed alternate."""
    kinds = [type(event) for event in run(probabilities)[1]]
    assert kinds[:1] in ([], [SpeechStarted])
    assert SpeechStarted not in kinds[1:]
    assert all(before is not after for before, after in pairwise(kinds[1:]))
    assert kinds[1:2] in ([], [SoftEnd])


@given(streams)
def test_edges_lie_in_the_past_and_in_order(probabilities: list[float]) -> None:
    """In the order of events, `at` (for a SoftEnd `speech_end`) never decreases.

    `at` of a SoftEnd is at least `soft_end_ms` after its `speech_end`.
    """
    state, events = run(probabilities)
    edges = [event.speech_end if isinstance(event, SoftEnd) else event.at for event in events]
    assert edges == sorted(edges)
    assert all(
        event.at - event.speech_end >= SETTINGS.soft_end_ms * 16 for event in events if isinstance(event, SoftEnd)
    )
    assert silence(state, len(probabilities) * VAD_WINDOW) >= 0


@given(streams)
def test_speech_ends_after_a_speech_window(probabilities: list[float]) -> None:
    """`speech_end` of a SoftEnd is the end of a window with a probability of `release_threshold` or more.

    All later windows up to the SoftEnd are below `threshold`.
    """
    for event in run(probabilities)[1]:
        if isinstance(event, SoftEnd):
            last = event.speech_end // VAD_WINDOW
            assert probabilities[last - 1] >= SETTINGS.release_threshold
            assert all(p < SETTINGS.threshold for p in probabilities[last : event.at // VAD_WINDOW])


# -- loudness ----------------------------------------------------------------------------------------------------------

LOUD, HUSHED, MURMUR = 1.0, 10 ** (-(HUSH_DB + 1) / 10), 10 ** (-(HUSH_DB - 6) / 10)
GONE, DIGITAL_SILENCE = 10 ** (-(GONE_DB + 1) / 10), 0.0


def edges(windows: Sequence[tuple[float, float | None]]) -> list[SpeechEvent]:
    """Return the speech events of windows, each with its probability of speech and its power (None if unknown)."""
    state = SpeechState()
    events: list[SpeechEvent] = []
    for number, (probability, power) in enumerate(windows, start=1):
        state, found = step(
            state, settings=SETTINGS, probability=probability, window_end=number * VAD_WINDOW, power=power
        )
        events += found
    return events


def test_a_much_quieter_window_needs_a_higher_probability() -> None:
    """In a window over 30 dB (HUSH_DB) quieter than the voice, a medium probability does not count as speech.

    The SoftEnd therefore comes sooner than with windows that are only 24 dB quieter.
    """
    speech = [(0.9, LOUD)] * 10
    tail = [(0.55, HUSHED), (0.45, HUSHED), (0.3, HUSHED), (0.1, HUSHED)]
    assert edges([*speech, *tail])[1] == SoftEnd(10 * VAD_WINDOW, 13 * VAD_WINDOW)
    spoken_on = [(probability, MURMUR) for probability, _ in tail]
    assert edges([*speech, *spoken_on, (0.1, MURMUR)])[1:] == [SoftEnd(12 * VAD_WINDOW, 15 * VAD_WINDOW)]


def test_a_high_probability_is_speech_at_any_level() -> None:
    """A high probability is speech also in much quieter windows.

    If the voice stays quiet, its level becomes the new reference, and medium probabilities count as speech again.
    """
    assert len(edges([(0.9, LOUD)] * 10 + [(0.7, HUSHED)] * 20)) == 1
    assert len(edges([(0.9, LOUD)] * 10 + [(0.7, HUSHED)] * 40 + [(0.45, HUSHED)] * 10)) == 1


def test_the_end_of_speech_is_found_over_a_television() -> None:
    """If speech over 10 dB quieter, as from a television, follows the caller's words, SoftEnd has their last sample.

    The quieter speech causes no SpeechResumed. Further words of the caller do.
    """
    television = [(0.9, LOUD / 20)] * 100
    found = edges([(0.9, LOUD)] * 10 + television)
    assert [type(event) for event in found] == [SpeechStarted, SoftEnd]
    assert found[1] == SoftEnd(10 * VAD_WINDOW, found[1].at)
    resumed = edges([(0.9, LOUD)] * 10 + television + [(0.9, LOUD)] * 3)
    assert [type(event) for event in resumed] == [SpeechStarted, SoftEnd, SpeechResumed]


def test_a_caller_with_quiet_words_is_not_background() -> None:
    """Quiet words of up to 2 s between loud words belong to the same utterance and cause no SoftEnd."""
    assert len(edges(([(0.9, LOUD)] * 5 + [(0.9, LOUD / 20)] * 50) * 6)) == 1


@pytest.mark.parametrize("power", [GONE, DIGITAL_SILENCE])
def test_without_sound_only_the_highest_probability_is_speech(power: float) -> None:
    """A window over 40 dB quieter than the voice is speech only with a probability of `drop_40db_threshold` or more."""
    speech = [(0.99, LOUD)] * 10
    assert edges([*speech, *[(0.95, power)] * 3])[1:] == [SoftEnd(10 * VAD_WINDOW, 13 * VAD_WINDOW)]
    assert edges([*speech, *[(0.95, HUSHED)] * 3])[1:] == []
    assert edges([*speech, *[(0.99, power)] * 3])[1:] == []


def dips(windows: Sequence[tuple[float, float | None]]) -> list[int | None]:
    """Return for each window the number (from 1) of the first window of its dip, or None outside of dips."""
    state = SpeechState()
    found: list[int | None] = []
    for number, (probability, power) in enumerate(windows, start=1):
        state, _ = step(state, settings=SETTINGS, probability=probability, window_end=number * VAD_WINDOW, power=power)
        found.append(None if state.dip is None else state.dip // VAD_WINDOW)
    return found


def test_a_dip_is_known_at_its_first_window_and_lasts_until_the_sound_returns() -> None:
    """A dip, a fall of the voice's level, begins with its first quiet window and ends when the level rises.

    A SoftEnd during the dip does not change where the dip began.
    """
    speech, low = [(0.9, LOUD)] * 10, [(0.9, MURMUR)] * 3
    assert dips([*speech, *low, (0.9, LOUD)]) == [None] * 10 + [11] * 3 + [None]
    assert dips([*speech, *low, *[(0.1, GONE)] * 4]) == [None] * 10 + [11] * 7


def test_silence_outside_an_utterance_is_not_a_dip() -> None:
    """There is no dip before speech starts or after the turn is committed."""
    assert dips([(0.1, GONE)] * 5) == [None] * 5
    state = SpeechState()
    for number, (probability, power) in enumerate([(0.9, LOUD)] * 10 + [(0.1, GONE)] * 3, start=1):
        state, _ = step(state, settings=SETTINGS, probability=probability, window_end=number * VAD_WINDOW, power=power)
    state, _ = step(committed(state), settings=SETTINGS, probability=0.1, window_end=14 * VAD_WINDOW, power=GONE)
    assert state.dip is None


def test_without_power_there_is_no_dip() -> None:
    """In windows without a power value there is no dip."""
    assert dips([(0.9, LOUD)] * 10 + [(0.1, None)] * 5) == [None] * 15


@given(streams)
def test_without_power_only_probabilities_count(probabilities: list[float]) -> None:
    """Windows without a power value cause the same events as windows that all have the same power."""
    assert edges([(probability, None) for probability in probabilities]) == edges(
        [(probability, LOUD) for probability in probabilities]
    )
