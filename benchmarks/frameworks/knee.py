"""Search the knee, the largest number of sessions that passes three times.

The search doubles the number until a run fails. Then it bisects until the knee is known to 5%, and confirms it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from benchmarks.frameworks.timing import Probe, ProbeOutcome

PRECISION = 0.05
REPEATS = 3
RETRIES = 4
MOST_PROBES = 24

Run = Callable[[int], Awaitable[Probe]]


@dataclass(slots=True)
class KneeSearch:
    """One search of the knee: `largest` makes its runs, and each run is stored in `probes`.

    Attributes:
        run: Function that makes one run with a number of sessions and returns its result.
        most: Largest number of sessions to try.
        probes: All runs so far, in order.
        earlier: Runs of an earlier, interrupted search. They are used before new runs are made.
    """

    run: Run
    most: int
    probes: list[Probe] = field(default_factory=list)
    earlier: list[Probe] = field(default_factory=list)

    async def probe(self, sessions: int) -> ProbeOutcome:
        """Return the outcome of a run with this many sessions.

        An INVALID run is repeated: at most `RETRIES` runs in one call, and `MOST_PROBES` runs in the whole search.
        """
        for _ in range(RETRIES):
            if len(self.probes) >= MOST_PROBES:
                return ProbeOutcome.INVALID
            result = self._earlier(sessions) or await self.run(sessions)
            self.probes.append(result)
            if result.outcome is not ProbeOutcome.INVALID:
                return result.outcome
        return ProbeOutcome.INVALID

    def _earlier(self, sessions: int) -> Probe | None:
        for number, probe in enumerate(self.earlier):
            if probe.sessions == sessions and probe.outcome is not ProbeOutcome.INVALID:
                return self.earlier.pop(number)
        return None

    def passes(self, sessions: int) -> int:
        """Return the number of passing runs with this many sessions."""
        return sum(1 for probe in self.probes if probe.sessions == sessions and probe.outcome is ProbeOutcome.PASS)


async def largest(search: KneeSearch, first: int) -> int | None:
    """Return the knee, searched from `first` sessions. 0 if one session fails, None if repeated runs stay INVALID."""
    bracket = await _bracket(search, first)
    if bracket is None:
        return None
    good, bad = bracket
    while good and bad - good > max(1, round(good * PRECISION)):
        middle = (good + bad) // 2
        outcome = await search.probe(middle)
        if outcome is ProbeOutcome.INVALID:
            return None
        good, bad = (middle, bad) if outcome is ProbeOutcome.PASS else (good, middle)
    while good:
        outcome = await _confirm(search, good)
        if outcome is ProbeOutcome.PASS:
            return good
        if outcome is ProbeOutcome.INVALID:
            return None
        good -= max(1, round(good * PRECISION))
    return 0


async def _bracket(search: KneeSearch, first: int) -> tuple[int, int] | None:
    """Return two numbers of sessions: one that passes (or 0), and one that fails (or is above `most`).

    None if repeated runs stay INVALID.
    """
    good, bad, sessions = 0, search.most + 1, max(1, min(first, search.most))
    while good < search.most and bad - good > 1:
        outcome = await search.probe(sessions)
        if outcome is ProbeOutcome.INVALID:
            return None
        if outcome is ProbeOutcome.PASS:
            good = sessions
            if bad <= search.most:
                break
            sessions = min(search.most, sessions * 2)
        else:
            bad = sessions
            if good:
                break
            sessions = max(1, sessions // 2)
    return good, bad


async def _confirm(search: KneeSearch, sessions: int) -> ProbeOutcome:
    while search.passes(sessions) < REPEATS:
        outcome = await search.probe(sessions)
        if outcome is not ProbeOutcome.PASS:
            return outcome
    return ProbeOutcome.PASS
