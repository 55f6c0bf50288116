"""Clock of incoming real-time audio: decides where silence belongs, because a client sends none.

A client with discontinuous transmission (DTX) sends nothing while its user is silent, and the network loses packets.
The speech detector needs audio without gaps: it counts time in samples. So silence fills up what is missing of the time
that has passed. The current time is an argument.
"""

from __future__ import annotations

GAP_S = 0.1
"""Seconds without audio after which silence is inserted. The network's jitter is usually less."""
LAG_S = 0.06
"""Seconds that inserted silence stays behind the time that has passed, for packets that are only late."""
LONGEST_S = 5.0
"""Maximum length of one insertion, in seconds, after which the clock starts anew: more of it would only take memory."""


class InputClock:
    """Counter of the audio of one call against the time that has passed. Not thread-safe.

    Call `silence` regularly, and before each piece of audio. Times are monotonic seconds.
    """

    def __init__(self, rate: int) -> None:
        """Create a clock for audio of `rate` samples per second. It starts with the first audio."""
        self._rate = rate
        self._start: float | None = None
        self._samples = 0

    def heard(self, samples: int, now: float) -> None:
        """Record that this many samples arrived at `now`."""
        if self._start is None:
            self._start = now - samples / self._rate
        self._samples += samples
        ahead_s = self._samples / self._rate - (now - self._start)
        # Audio that arrives faster than time passes only follows inserted silence or a stall. It moves the clock's
        # start, so that the next gap is noticed as early as this one.
        if ahead_s > 0:
            self._start -= ahead_s

    def silence(self, now: float) -> int:
        """Return the number of samples of silence to insert now, and count them as audio. 0 if nothing is missing."""
        if self._start is None:
            return 0
        missing_s = now - self._start - self._samples / self._rate
        if missing_s < GAP_S:
            return 0
        if missing_s > LONGEST_S:
            self._start += missing_s - LONGEST_S
            missing_s = LONGEST_S
        inserted = round((missing_s - LAG_S) * self._rate)
        self._samples += inserted
        return inserted
