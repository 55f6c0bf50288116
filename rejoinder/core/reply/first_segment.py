"""How short a reply's first segment may be: just long enough to be heard until the second one is ready.

The caller waits for the first segment's words and for its synthesis, so a short one is heard sooner; too short, it is
over before the second has any audio, and the reply stutters. A segment of n words plays for n * SPOKEN_S. Meanwhile n
more words are thought (`think_s` each) and the next segment's first audio is made (`voice_s`). So the least n is

    n * SPOKEN_S  >=  n * think_s + voice_s + RESERVE_S

Both times are what this host saw lately, at a high quantile: a slow machine speaks longer segments by itself.
"""

from __future__ import annotations

import math

from rejoinder.core.measuring.waterfall import Marks, Stage
from rejoinder.core.resilience.hedging import TtftWindow

SPOKEN_S = 0.3
"""A word at 200 words a minute, the brisk end of conversation; slower speech only plays longer."""

RESERVE_S = 0.25
"""For what the estimates do not know: the way to the listener, and the segment that is cut late."""

QUANTILE = 0.9
WINDOW_S = 300.0
LEAST_SAMPLES = 3


class FirstSegmentSizer:
    """Of one host: how long words and their audio take, shared by all of its replies."""

    def __init__(self) -> None:
        self._think = TtftWindow(WINDOW_S)
        self._voice = TtftWindow(WINDOW_S)

    def thought(self, marks: Marks, words: int, now: float) -> None:
        """An answer of so many words is complete."""
        first = marks.spans(now).get(Stage.LLM_FIRST_TOKEN)
        if words and first:
            self._think.observe((now - first[1]) / words, now)

    def voiced(self, marks: Marks, now: float) -> None:
        """A reply is heard."""
        voice = marks.spans(now).get(Stage.TTS_FIRST_AUDIO)
        if voice:
            self._voice.observe(voice[1] - voice[0], now)

    def first_words(self, least: int, most: int, now: float) -> int:
        """Words of the first segment, `least` to `most`; `most` while too little is known."""
        if min(self._think.count(now), self._voice.count(now)) < LEAST_SAMPLES:
            return most
        gained_s = SPOKEN_S - self._think.quantile(QUANTILE, now)
        needed_s = self._voice.quantile(QUANTILE, now) + RESERVE_S
        if gained_s <= 0:
            return most
        return min(most, max(least, math.ceil(needed_s / gained_s)))
