"""The largest number of sessions that passes three times: doubling, then bisection to 5%, then confirmation."""

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
    """What is known so far; `probes` in the order they were made. `earlier`: of a search that was broken off, used up
    before anything is run again.
    """

    run: Run
    most: int
    probes: list[Probe] = field(default_factory=list)
    earlier: list[Probe] = field(default_factory=list)

    async def probe(self, sessions: int) -> ProbeOutcome:
        """One valid answer about `sessions`; a run that the harness spoiled is repeated, within a bound."""
        for _ in range(RETRIES):
            if len(self.probes) >= MOST_PROBES:
                return ProbeOutcome.INVALID
            result = self._remembered(sessions) or await self.run(sessions)
            self.probes.append(result)
            if result.outcome is not ProbeOutcome.INVALID:
                return result.outcome
        return ProbeOutcome.INVALID

    def _remembered(self, sessions: int) -> Probe | None:
        for number, probe in enumerate(self.earlier):
            if probe.sessions == sessions and probe.outcome is not ProbeOutcome.INVALID:
                return self.earlier.pop(number)
        return None

    def passes(self, sessions: int) -> int:
        return sum(1 for probe in self.probes if probe.sessions == sessions and probe.outcome is ProbeOutcome.PASS)


async def largest(search: KneeSearch, first: int) -> int | None:
    """The knee; 0 if not even one session passes, None if the harness could not tell."""
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
    """A number that passes (0 at least) and one that fails, or is above what may be tried."""
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
