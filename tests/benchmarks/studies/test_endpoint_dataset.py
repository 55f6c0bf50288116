"""Tests of the parts of the endpointing dataset that need no model: pauses, windows, splits and word boundaries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.endpoint_dataset import (
    WINDOWS_AFTER,
    WINDOWS_BEFORE,
    HeardEvent,
    Windows,
    listening,
    resumed_ms_after,
)
from benchmarks.studies.word_boundaries import quietest_s
from loadtest.turn_corpus.audio import EventAudio
from loadtest.turn_corpus.event import Scene, Split
from loadtest.turn_corpus.recipe import events
from rejoinder.core.audio.pcm import STT_RATE, VAD_WINDOW
from rejoinder.core.turns.speech_detector import SoftEnd, SpeechEvent, SpeechResumed, SpeechStarted

PCM = np.zeros(10 * STT_RATE, np.int16)
AUDIO = EventAudio(PCM, 0.5, speech_end_s=4.0, pauses=((2.0, 2.8),), file=Path("a.wav"))
SOFT = SoftEnd(2 * STT_RATE, at=2 * STT_RATE + VAD_WINDOW)


def _heard(windows: int = 300) -> HeardEvent:
    numbers = np.arange(windows, dtype=np.float32)
    return HeardEvent(events()[0], AUDIO, "", Windows(numbers / np.float32(1000), -numbers))


def test_a_silence_before_more_words_of_the_caller_is_a_pause() -> None:
    """`resumed_ms_after` returns the ms of silence in a pause, plus two windows in which resumed speech is noticed.

    Here speech pauses at 2.0 s and resumes at 2.8 s, which gives 800 + 64 ms.
    """
    later: list[SpeechEvent] = [SpeechResumed(round(2.8 * STT_RATE))]
    assert resumed_ms_after(SOFT, later, AUDIO) == pytest.approx(864, abs=0.1)


@pytest.mark.parametrize("later", [[], [SpeechStarted(5 * STT_RATE)], [SpeechResumed(round(4.4 * STT_RATE))]])
def test_a_silence_after_the_last_word_is_an_end(later: list[SpeechEvent]) -> None:
    """`resumed_ms_after` returns None if no speech follows the silence, or only speech after the true end of the
    caller's turn, such as that of another person.
    """
    assert resumed_ms_after(SOFT, later, AUDIO) is None


def test_the_written_windows_surround_the_end_of_speech() -> None:
    """`windows_around` returns WINDOWS_BEFORE windows before the end of speech and at most WINDOWS_AFTER after it.

    If speech resumes after 320 ms, only the 10 windows until then follow the end of speech.
    """
    end = SOFT.speech_end // VAD_WINDOW
    vad, level = _heard().windows_around(SOFT, 320.0)
    assert vad[0] == pytest.approx((end - WINDOWS_BEFORE) / 1000, abs=0.0006)
    assert len(vad) == len(level) == WINDOWS_BEFORE + 10
    assert len(_heard().windows_around(SOFT, None)[0]) == WINDOWS_BEFORE + WINDOWS_AFTER


@pytest.mark.models
def test_the_dataset_has_only_turns_of_the_asked_split() -> None:
    """`listening` returns only events of the given split in which the caller speaks to a silent agent."""
    found = listening(Split.HELD_OUT)
    assert {(event.scene, event.split) for event in found} == {(Scene.LISTENING, Split.HELD_OUT)}


def test_a_cut_lies_in_the_quietest_moment_near_the_word_boundary() -> None:
    """`quietest_s` returns the middle of the quietest 10 ms near a word boundary, in seconds.

    Silence of 20 ms at 1.03 s is found for a boundary at 1.0 s. A longer silence at 1.2 s is too far away.
    """
    audio = np.ones(2 * STT_RATE, np.float32)
    audio[round(1.03 * STT_RATE) : round(1.05 * STT_RATE)] = 0
    audio[round(1.2 * STT_RATE) : round(1.4 * STT_RATE)] = 0
    assert quietest_s(audio, 1.0) == pytest.approx(1.04, abs=0.015)
