"""Tests of the level gate: it decides by level and words whether speech is the caller's or in the background."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW
from rejoinder.core.settings.settings import BackgroundSettings
from rejoinder.core.turns.barge_in import is_addressed
from rejoinder.core.turns.caller_level import BACKGROUND_S, SINK_DB, CallerLevel, level_dbfs

SETTINGS = BackgroundSettings()
KNOWN = CallerLevel().heard(-16.0)
levels = st.floats(-80, 0)


@pytest.mark.parametrize(
    ("gap_db", "addressed", "background"),
    [(0, False, False), (7, False, False), (9, False, True), (9, True, False), (11, True, False), (13, True, True)],
)
def test_the_gap_to_the_caller_decides(gap_db: float, addressed: bool, background: bool) -> None:
    """Speech up to 8 dB quieter than the caller is the caller's, and over 12 dB quieter it is background.

    In between, it is background unless its words address the agent.
    """
    assert KNOWN.is_background(-16 - gap_db, SETTINGS, addressed=addressed) is background


@pytest.mark.parametrize(
    ("level", "addressed", "background"),
    [(-28, False, False), (-37, False, True), (-32, True, False), (-39, True, False), (-41, True, True)],
)
def test_levels_stand_in_for_an_unknown_caller(level: float, addressed: bool, background: bool) -> None:
    """Before the first turn, speech below -40 dBFS is background.

    From -40 to -36 dBFS it is background unless its words address the agent.
    """
    assert CallerLevel().is_background(level, SETTINGS, addressed=addressed) is background


def test_the_loud_parts_of_a_television_are_doubtful_too() -> None:
    """If background speech was dismissed before the first turn, speech up to 8 dB louder is treated as background too.

    It is not background if its words address the agent.
    """
    level = CallerLevel().dismissed(-29.0, 0)
    assert level.is_background(-22.0, SETTINGS, addressed=False)
    assert not level.is_background(-22.0, SETTINGS, addressed=True)
    assert not level.is_background(-20.0, SETTINGS, addressed=False)


def test_a_louder_caller_takes_the_place_of_a_television() -> None:
    """If a television was mistaken for the caller, the real caller's first turn raises the caller's level.

    From then on, the television is background.
    """
    fooled = CallerLevel().heard(-32.0)
    assert not fooled.is_background(-32.0, SETTINGS, addressed=False)
    assert fooled.heard(-14.0).is_background(-32.0, SETTINGS, addressed=False)


def test_a_caller_who_moves_away_is_heard_again() -> None:
    """While sounds are refused, the stored level of the caller sinks by up to SINK_DB.

    The next turn ends the reduction.
    """
    level = KNOWN
    for _ in range(30 * STT_RATE // VAD_WINDOW):
        level = level.refused()
    assert level.reference_dbfs == pytest.approx(-16 - SINK_DB)
    assert level.heard(-20.0).sunk_db == 0


def test_background_speech_starts_no_second_utterance() -> None:
    """For BACKGROUND_S seconds after dismissed background speech, sound of its level starts no utterance.

    Sound of the caller's level can always start one.
    """
    after = KNOWN.dismissed(-26.0, 1000)
    assert -26.0 < after.onset_dbfs(1000, SETTINGS) < -16.0
    assert after.onset_dbfs(1000 + round(BACKGROUND_S * STT_RATE), SETTINGS) == KNOWN.onset_dbfs(0, SETTINGS)
    loud = KNOWN.dismissed(-10.0, 1000)
    assert loud.onset_dbfs(1000, SETTINGS) < -16.0


def test_without_a_known_caller_every_sound_starts_an_utterance() -> None:
    """Before the first turn, sound of any level starts an utterance. Otherwise a quiet caller would never be heard."""
    assert CallerLevel().dismissed(-30.0, 0).onset_dbfs(0, SETTINGS) == -math.inf


@given(levels, levels, st.booleans())
def test_switched_off_nothing_is_background(caller: float, level: float, addressed: bool) -> None:
    """With background.enabled false, no speech is background and every sound starts an utterance."""
    off = BackgroundSettings(enabled=False)
    known = CallerLevel().heard(caller)
    assert not known.is_background(level, off, addressed=addressed)
    assert known.onset_dbfs(0, off) == -math.inf


@given(levels, levels, levels)
def test_louder_speech_is_never_rather_background(caller: float, one: float, other: float) -> None:
    """If speech of one level counts, louder speech with the same words does too."""
    low, high = sorted((one, other))
    known = CallerLevel().heard(caller)
    assert known.is_background(low, SETTINGS, addressed=True) or not known.is_background(high, SETTINGS, addressed=True)


def test_the_level_is_that_of_the_loud_windows() -> None:
    """Silence between words does not lower the measured level. Audio shorter than a window has a level of -inf."""
    tone = (np.sin(np.arange(STT_RATE) * 0.3) * 3276.8).astype(np.int16)  # # RMS level -23 dBFS
    spaced = np.concatenate([tone, np.zeros(STT_RATE, np.int16)])
    assert level_dbfs(tone) == pytest.approx(-23.0, abs=0.2)
    assert level_dbfs(spaced) == pytest.approx(-23.0, abs=0.2)
    assert level_dbfs(tone[:100]) == -math.inf


@pytest.mark.parametrize(
    ("text", "asked", "addressed"),
    [
        ("What time do you close?", "", True),
        ("I would like to book a table.", "", True),
        ("Cancel the order.", "", True),
        ("Hello", "", True),
        ("On Tuesday.", "Which day suits you?", True),
        ("555 012 3456", "What is your phone number?", True),
        ("On Tuesday.", "It is closed.", False),
        ("It was the best of times, it was the worst of times.", "", False),
        ("It was the best of times, it was the worst of times.", "Which day suits you?", False),
        ("The weather tomorrow will be sunny with some clouds.", "", False),
        ("", "", False),
    ],
)
def test_words_that_address_the_agent(text: str, asked: str, addressed: bool) -> None:
    """Questions, requests, greetings and answers to the assistant's question address the agent. Narration does not."""
    assert is_addressed(text, asked) is addressed
