"""The first segment's length follows what words and their audio take."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.reply.first_segment import LEAST_SAMPLES, RESERVE_S, SPOKEN_S, WINDOW_S, FirstSegmentSizer

LEAST, MOST = 3, 8


WORDS = 10


def marked(stage: Stage, seconds: float) -> Marks:
    """Of a reply whose stage took so long, until the instant 0."""
    marks = Marks()
    marks.start(stage, -seconds)
    marks.end(stage, 0.0)
    return marks


def observe(pace: FirstSegmentSizer, think_s: float, voice_s: float) -> None:
    """A reply of WORDS words: its first token came at the instant 0."""
    pace.thought(marked(Stage.LLM_FIRST_TOKEN, 0.1), WORDS, WORDS * think_s)
    pace.voiced(marked(Stage.TTS_FIRST_AUDIO, voice_s), 0.0)


def paced(think_s: float, voice_s: float, samples: int = LEAST_SAMPLES) -> FirstSegmentSizer:
    pace = FirstSegmentSizer()
    for _ in range(samples):
        observe(pace, think_s, voice_s)
    return pace


def test_little_known_means_long() -> None:
    """Before enough was seen, and after it was forgotten, the first segment is as long as allowed."""
    assert paced(0.01, 0.05, LEAST_SAMPLES - 1).first_words(LEAST, MOST, 0.0) == MOST
    pace = paced(0.01, 0.05)
    assert pace.first_words(LEAST, MOST, 1.0) == LEAST
    assert pace.first_words(LEAST, MOST, 2 * WINDOW_S) == MOST


def test_a_slow_machine_speaks_longer_segments() -> None:
    """A slower voice needs more words before it; a model slower than speech as many as allowed."""
    lengths = [paced(0.02, voice_s).first_words(LEAST, MOST, 0.0) for voice_s in (0.1, 0.7, 1.2, 5.0)]
    assert lengths == [LEAST, 4, 6, MOST]
    assert paced(SPOKEN_S + 0.1, 0.1).first_words(LEAST, MOST, 0.0) == MOST


def test_an_answer_without_words_teaches_nothing() -> None:
    """Nor does one that no stage was marked of."""
    pace = paced(0.01, 0.05, LEAST_SAMPLES - 1)
    pace.thought(marked(Stage.LLM_FIRST_TOKEN, 0.1), 0, 0.0)
    pace.thought(Marks(), WORDS, 0.0)
    pace.voiced(Marks(), 0.0)
    assert pace.first_words(LEAST, MOST, 0.0) == MOST


@given(think_s=st.floats(0.001, 0.5), voice_s=st.floats(0.001, 3.0))
def test_the_second_segment_is_ready_in_time(think_s: float, voice_s: float) -> None:
    """Unless the limit cuts it short, the first segment plays until as many words are thought and voiced again."""
    words = paced(think_s, voice_s).first_words(LEAST, MOST, 0.0)
    assert LEAST <= words <= MOST
    if words < MOST:
        assert words * SPOKEN_S >= 0.98 * (words * think_s + voice_s) + RESERVE_S - 0.02
