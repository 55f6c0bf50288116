"""Tests of the length in words of a reply's first segment, which follows from recent generation and synthesis times."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.reply.first_segment import LEAST_SAMPLES, RESERVE_S, SPOKEN_S, WINDOW_S, FirstSegmentSizer

LEAST, MOST = 3, 8


WORDS = 10


def marked(stage: Stage, seconds: float) -> Marks:
    """Return the marks of a reply in which `stage` took `seconds` and ended at time 0."""
    marks = Marks()
    marks.start(stage, -seconds)
    marks.end(stage, 0.0)
    return marks


def observe(sizer: FirstSegmentSizer, word_s: float, voice_s: float) -> None:
    """Record a reply of WORDS words with `word_s` seconds of generation per word and `voice_s` to the first audio."""
    sizer.thought(marked(Stage.LLM_FIRST_TOKEN, 0.1), WORDS, WORDS * word_s)
    sizer.voiced(marked(Stage.TTS_FIRST_AUDIO, voice_s), 0.0)


def trained(word_s: float, voice_s: float, samples: int = LEAST_SAMPLES) -> FirstSegmentSizer:
    """Return a sizer that has recorded `samples` replies with these times in seconds (see `observe`)."""
    sizer = FirstSegmentSizer()
    for _ in range(samples):
        observe(sizer, word_s, voice_s)
    return sizer


def test_without_samples_the_segment_is_long() -> None:
    """Without LEAST_SAMPLES measurements in the last WINDOW_S seconds, the first segment has the maximum length."""
    assert trained(0.01, 0.05, LEAST_SAMPLES - 1).first_words(LEAST, MOST, 0.0) == MOST
    sizer = trained(0.01, 0.05)
    assert sizer.first_words(LEAST, MOST, 1.0) == LEAST
    assert sizer.first_words(LEAST, MOST, 2 * WINDOW_S) == MOST


def test_a_slow_machine_uses_longer_segments() -> None:
    """Slower synthesis makes the first segment longer. It has the maximum if words are generated slower than spoken."""
    lengths = [trained(0.02, voice_s).first_words(LEAST, MOST, 0.0) for voice_s in (0.1, 0.7, 1.2, 5.0)]
    assert lengths == [LEAST, 4, 6, MOST]
    assert trained(SPOKEN_S + 0.1, 0.1).first_words(LEAST, MOST, 0.0) == MOST


def test_an_answer_without_words_is_not_recorded() -> None:
    """A reply without words, or without marks of generation or synthesis, is not a measurement."""
    sizer = trained(0.01, 0.05, LEAST_SAMPLES - 1)
    sizer.thought(marked(Stage.LLM_FIRST_TOKEN, 0.1), 0, 0.0)
    sizer.thought(Marks(), WORDS, 0.0)
    sizer.voiced(Marks(), 0.0)
    assert sizer.first_words(LEAST, MOST, 0.0) == MOST


@given(word_s=st.floats(0.001, 0.5), voice_s=st.floats(0.001, 3.0))
def test_the_second_segment_is_ready_in_time(word_s: float, voice_s: float) -> None:
    """The second segment has audio RESERVE_S seconds before the first is spoken, to within 20 ms and 2%.

    Only a first segment of the maximum length may be too short for that.
    """
    words = trained(word_s, voice_s).first_words(LEAST, MOST, 0.0)
    assert LEAST <= words <= MOST
    if words < MOST:
        assert words * SPOKEN_S >= 0.98 * (words * word_s + voice_s) + RESERVE_S - 0.02
