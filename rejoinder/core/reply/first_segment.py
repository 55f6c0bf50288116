"""Length of a reply's first segment: just long enough to play until the second segment is ready.

The caller waits for the words of the first segment and for its synthesis, so a short first segment is heard sooner. If
it is too short, it ends before the second segment has any audio, and the reply stutters. A segment of n words plays for
n * SPOKEN_S seconds. In this time the model must generate n more words (`word_s` each), and the first audio of the next
segment must be synthesized (`voice_s`). The result n is the smallest number with

    n * SPOKEN_S  >=  n * word_s + voice_s + RESERVE_S

`word_s` and `voice_s` are high quantiles of this host's recent measurements, so a slow machine uses longer segments.
"""

from __future__ import annotations

import math

from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.resilience.hedging import TtftWindow

SPOKEN_S = 0.3
"""Seconds per spoken word at 200 words per minute, fast for a conversation. Slower speech only plays longer."""

RESERVE_S = 0.25
"""Seconds for what the estimates leave out: the network, and a second segment that is completed late."""

QUANTILE = 0.9
"""Quantile of the measured times that is used for `word_s` and `voice_s`."""

WINDOW_S = 300.0
"""Seconds for which a measured time counts."""

LEAST_SAMPLES = 3
"""Minimum number of measurements of each time. With fewer, the longest first segment is used."""


class FirstSegmentSizer:
    """Estimator of the best length of a first segment, from the generation and synthesis times of a host's replies.

    Times are monotonic seconds. Not thread-safe.
    """

    def __init__(self) -> None:
        self._word_s = TtftWindow(WINDOW_S)
        self._voice_s = TtftWindow(WINDOW_S)

    def thought(self, marks: Marks, words: int, now: float) -> None:
        """Record that the model completed an answer of `words` words at `now`.

        Args:
            marks: The marks of the answer's turn. The time per word counts from the first token.
            words: Number of words of the answer.
            now: Monotonic time in seconds.
        """
        first = marks.spans(now).get(Stage.LLM_FIRST_TOKEN)
        if words and first:
            self._word_s.observe((now - first[1]) / words, now)

    def voiced(self, marks: Marks, now: float) -> None:
        """Record how long the first audio of a reply took to synthesize. `marks`: the marks of the reply's turn."""
        voice = marks.spans(now).get(Stage.TTS_FIRST_AUDIO)
        if voice:
            self._voice_s.observe(voice[1] - voice[0], now)

    def first_words(self, least: int, most: int, now: float) -> int:
        """Return the number of words for the first segment of a reply.

        Return `most` if there are fewer than LEAST_SAMPLES measurements, or if the model is slower than speech.

        Args:
            least: Minimum number of words.
            most: Maximum number of words.
            now: Monotonic time in seconds.
        """
        if min(self._word_s.count(now), self._voice_s.count(now)) < LEAST_SAMPLES:
            return most
        # Seconds that each word of the first segment gains: its playing time minus the time to generate one more word.
        gained_s = SPOKEN_S - self._word_s.quantile(QUANTILE, now)
        needed_s = self._voice_s.quantile(QUANTILE, now) + RESERVE_S
        if gained_s <= 0:
            return most
        return min(most, max(least, math.ceil(needed_s / gained_s)))
