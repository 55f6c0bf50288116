"""Tests of the length of the first segment, from generation and synthesis times."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.reply.first_segment import LEAST_SAMPLES, RESERVE_S, SPOKEN_S, WINDOW_S, FirstSegmentSizer

LEAST, MOST = 3, 8


WORDS = 10


def marked(stage: Stage, seconds: float) -> Marks:
    """Return the marks of a reply whose stage took this long and ended at time 0."""
    marks = Marks()
    marks.start(stage, -seconds)
    marks.end(stage, 0.0)
    return marks


def observe(sizer: FirstSegmentSizer, word_s: float, voice_s: float) -> None:
    """Record a reply of WORDS words whose first token came at time 0."""
    sizer.thought(marked(Stage.LLM_FIRST_TOKEN, 0.1), WORDS, WORDS * word_s)
    sizer.voiced(marked(Stage.TTS_FIRST_AUDIO, voice_s), 0.0)


def trained(word_s: float, voice_s: float, samples: int = LEAST_SAMPLES) -> FirstSegmentSizer:
    """Return a sizer that has recorded this many replies."""
    sizer = FirstSegmentSizer()
    for _ in range(samples):
        observe(sizer, word_s, voice_s)
    return sizer


def test_without_samples_the_segment_is_long() -> None:
    """With too few or expired measurements, the first segment has the maximum length."""
    assert trained(0.01, 0.05, LEAST_SAMPLES - 1).first_words(LEAST, MOST, 0.0) == MOST
    sizer = trained(0.01, 0.05)
    assert sizer.first_words(LEAST, MOST, 1.0) == LEAST
    assert sizer.first_words(LEAST, MOST, 2 * WINDOW_S) == MOST


def test_a_slow_machine_uses_longer_segments() -> None:
    """Slower synthesis makes the first segment longer. A model slower than speech makes it as long as allowed."""
    lengths = [trained(0.02, voice_s).first_words(LEAST, MOST, 0.0) for voice_s in (0.1, 0.7, 1.2, 5.0)]
    assert lengths == [LEAST, 4, 6, MOST]
    assert trained(SPOKEN_S + 0.1, 0.1).first_words(LEAST, MOST, 0.0) == MOST


def test_an_answer_without_words_is_not_recorded() -> None:
    """An answer without words, or without marks of the stage, is not recorded."""
    sizer = trained(0.01, 0.05, LEAST_SAMPLES - 1)
    sizer.thought(marked(Stage.LLM_FIRST_TOKEN, 0.1), 0, 0.0)
    sizer.thought(Marks(), WORDS, 0.0)
    sizer.voiced(Marks(), 0.0)
    assert sizer.first_words(LEAST, MOST, 0.0) == MOST


@given(word_s=st.floats(0.001, 0.5), voice_s=st.floats(0.001, 3.0))
def test_the_second_segment_is_ready_in_time(word_s: float, voice_s: float) -> None:
    """Unless the maximum limits it, the first segment plays until the second one has its words and its audio."""
    words = trained(word_s, voice_s).first_words(LEAST, MOST, 0.0)
    assert LEAST <= words <= MOST
    if words < MOST:
        assert words * SPOKEN_S >= 0.98 * (words * word_s + voice_s) + RESERVE_S - 0.02
