"""Ceiling of the number of calls, learned from the latencies of their turns.

A prediction of latency from load is only as good as its model. So the number of calls may exceed what has been measured
only by a step. If enough turns with a number of calls were in time, the ceiling is raised to `growth` times this number
of calls. If turns were late, it is lowered to a number below theirs. The same number is tried again after PROBE_S
seconds; each failure doubles this time.

Turns are late if their median exceeds the limit of the tier, or if more than a few exceed TAIL times the limit. TAIL is
the ratio of the latency guide's targets for the 95th percentile and for the median (section 7.1: 1200 and 800 ms).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

ENOUGH_TURNS = 20
"""Number of turns from which they count as in time. With 20 turns, one may be in the slowest 5%."""
ENOUGH_PER_CALL = 4
"""Turns of each call from which they count as in time, if these are fewer than ENOUGH_TURNS. A call has about 6 turns
in OLDEST_S seconds, so a few calls never have ENOUGH_TURNS. Their ceiling rises by one call only.
"""
FEW_TURNS = 5
"""Number of turns from which they count as late, and least number from which they count as in time."""
RECENT_S = 8.0
"""Seconds of turns that are judged together; if they are fewer than ENOUGH_TURNS, the turns before them too."""
OLDEST_S = 60.0
"""Age in seconds above which a turn is not used."""
SIMILAR = 1.25
"""Largest ratio of a turn's number of calls and the present one for which its latency says something about now."""
TAIL = 1.5
LATE_SHARE = 0.05
"""Share of turns above TAIL times the limit that counts as in time."""
MOST_LATE_SHARE = 0.1
"""Share of turns above TAIL times the limit that counts as late. Between the two shares, the ceiling stays."""
CUT = 0.1
"""Share of the calls by which the ceiling is below a number with late turns, but at least one call."""
PROBE_S = 60.0
MAX_PROBE_S = 600.0
SLOWER_THAN_TIER = 1.25
"""If turns exceed the tier's limit even without load, the limit is this multiple of their latency without load."""


@dataclass(frozen=True, slots=True)
class MeasuredTurn:
    """Latency of an answered turn in seconds, when it was answered, and the number of live calls then."""

    at: float
    seconds: float
    calls: int


class CallCeiling:
    """Ceiling of the number of calls on all hosts. It has no clock; times are monotonic, in seconds.

    Attributes:
        number: The ceiling.
        base_s: Smallest median latency so far, in seconds: about that without load. Infinite before the first one.
    """

    def __init__(self, limit_s: float, growth: float) -> None:
        """Create a ceiling of 0 calls.

        Args:
            limit_s: Limit of the median latency in seconds.
            growth: Factor by which the ceiling may exceed a number of calls whose turns were in time.
        """
        self.number = 0
        self.base_s = math.inf
        self._limit_s = limit_s
        self._growth = growth
        self._turns: deque[MeasuredTurn] = deque(maxlen=1000)
        self._changed_at = -math.inf
        self._failed_calls = 0
        self._retry_at = -math.inf
        self._pause_s = PROBE_S

    @property
    def limit_s(self) -> float:
        """Limit of the median latency in seconds, raised if turns are slower than that even without load."""
        return max(self._limit_s, SLOWER_THAN_TIER * self.base_s) if self.base_s < math.inf else self._limit_s

    def note(self, turn: MeasuredTurn) -> None:
        """Record an answered turn. The turns come in the order of their times."""
        self._turns.append(turn)

    def median_s(self, calls: int, now: float) -> float | None:
        """Return the median latency with about this number of calls, in seconds; None if there are few turns."""
        sample = self._sample(calls, now)
        return _median(sample) if len(sample) >= FEW_TURNS else None

    def judge(self, calls: int, now: float, *, beyond: bool) -> None:
        """Raise or lower the ceiling by the turns since its last change.

        Args:
            calls: The number of live calls.
            now: The time.
            beyond: Whether a stage is beyond its limit. Then the ceiling is not raised.
        """
        sample = self._sample(calls, now)
        enough = min(ENOUGH_TURNS, max(FEW_TURNS, ENOUGH_PER_CALL * calls))
        if len(sample) >= enough:
            self.base_s = min(self.base_s, _median(sample))
        fresh = [turn for turn in sample if turn.at > self._changed_at]
        if len(fresh) < FEW_TURNS:
            return
        # Late turns with more calls than now say nothing against the present number.
        same = [turn for turn in fresh if turn.calls <= calls]
        if len(same) >= FEW_TURNS and (
            _median(same) > self.limit_s or self._tail(same) > max(1, MOST_LATE_SHARE * len(same))
        ):
            self._lower(calls, now)
        elif not beyond and len(fresh) >= enough and self._in_time(fresh):
            self._raise(min(turn.calls for turn in fresh), now)

    def _tail(self, turns: list[MeasuredTurn]) -> int:
        return sum(turn.seconds > TAIL * self.limit_s for turn in turns)

    def _in_time(self, turns: list[MeasuredTurn]) -> bool:
        return _median(turns) <= self.limit_s and self._tail(turns) <= max(1, LATE_SHARE * len(turns))

    def start(self, number: int) -> None:
        """Raise the ceiling to at least `number`, the number of calls that are admitted without measurements."""
        if not self._failed_calls:
            self.number = max(self.number, number)

    def _lower(self, calls: int, now: float) -> None:
        below = max(1, calls - max(1, math.floor(CUT * calls)))
        if below >= self.number:
            return
        again = self._failed_calls and calls <= SIMILAR * self._failed_calls
        self._pause_s = min(MAX_PROBE_S, 2 * self._pause_s) if again else PROBE_S
        self.number, self._failed_calls, self._retry_at = below, calls, now + self._pause_s
        self._changed_at = now

    def _raise(self, calls: int, now: float) -> None:
        higher = max(calls + 1, math.floor(self._growth * calls))
        if self._failed_calls and now < self._retry_at:
            higher = min(higher, self._failed_calls - 1)
        if higher > self.number:
            self.number, self._changed_at = higher, now

    def _sample(self, calls: int, now: float) -> list[MeasuredTurn]:
        """Return the recent turns with about this number of calls, newest first."""
        while self._turns and self._turns[0].at < now - OLDEST_S:
            self._turns.popleft()
        found: list[MeasuredTurn] = []
        for turn in reversed(self._turns):
            if turn.at < now - RECENT_S and len(found) >= ENOUGH_TURNS:
                break
            if turn.calls <= SIMILAR * max(1, calls) and calls <= SIMILAR * max(1, turn.calls):
                found.append(turn)
        return found


def _median(turns: list[MeasuredTurn]) -> float:
    return sorted(turn.seconds for turn in turns)[len(turns) // 2]
