"""Hedged requests: when a second attempt goes out, what it may cost, and which attempt wins.

A tail of slow first tokens (a stalled replica, a long queue) is cut by asking another replica, provided that the
slowness is not the request's own and that asking does not become the load that causes it. Three parts see to that.

*When.* The delay is the (1 - budget) quantile of the time to first token seen lately, so hedges go to the slowest
few requests whatever "slow" means today; too few samples, and a fixed first-token deadline takes its place. The
window is three slices of ten seconds (Finagle's BackupRequestFilter): old enough to hold samples, young enough to
follow load. Attempts that lost must be observed too, with the time they had waited: leave them out and the window
sees only fast answers, the delay sinks, and more is hedged for nothing.

*How much.* Every primary earns `budget` tokens, every further attempt costs one, hedge or retry. A delay alone
does not bound the load: once a cluster saturates, everything is slow and everything would be hedged (simulated at
0.7 utilisation without cancellation: 98% hedged, collapse; with the budget: unharmed).

*Which.* `step` runs one race to the first token: the first attempt to produce one wins, the others are cancelled.
After the first token nothing may be switched: it is already being spoken.

    READY -- PrimarySent --> RUNNING -- FirstToken --> WON
                              |    \\
                HedgeDue, Failed    +-- Failed, none left --> LOST

The window's histogram has logarithmic buckets (as DDSketch): its quantiles are within RELATIVE_ERROR of the true
order statistic at any scale, at a few hundred integers a slice.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from rejoinder.core.settings.settings import HedgingSettings

RELATIVE_ERROR = 0.01

SLICES = 3
"""Finagle's window: the oldest third is forgotten at a time."""

PROMPT_BANDS = (256, 1024, 4096)
"""Tokens: a voice agent's first turns, its later ones, one with documents, and what is beyond."""

CHARACTERS_A_TOKEN = 4
"""English text, roughly: enough to tell bands apart that differ fourfold."""

MAX_ATTEMPTS = 3
"""The primary, its hedge or retry, and one more; gRPC's hedging caps attempts likewise (at 5)."""

USUAL_SAMPLES = 10
"""First tokens that make a median worth its name."""

MAX_RUNNING = 2
"""A hedge is a second opinion; a third at the same time would answer to overload with load."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_SHORTEST_S = 1e-6
# A budget of 0.1 must buy one token after ten requests, although ten times 0.1 is a little less than 1.
_ROUNDING = 1e-9


def prompt_tokens(characters: int) -> int:
    """About how many tokens a prompt of so many characters has."""
    return characters // CHARACTERS_A_TOKEN


class TtftWindow:
    """Times to first token of the last `window_s` (at least the last two thirds of it), for quantiles."""

    def __init__(self, window_s: float, slices: int = SLICES) -> None:
        self._slice_s = window_s / slices
        self._kept = slices
        self._slices: deque[tuple[int, Counter[int]]] = deque()

    def observe(self, ttft_s: float, now: float) -> None:
        current = self._forget(now)
        if not self._slices or self._slices[-1][0] < current:
            self._slices.append((current, Counter()))
        self._slices[-1][1][math.ceil(math.log(max(ttft_s, _SHORTEST_S), _GAMMA))] += 1

    def count(self, now: float) -> int:
        """Samples in the window."""
        self._forget(now)
        return sum(counts.total() for _, counts in self._slices)

    def quantile(self, q: float, now: float) -> float:
        """The ceil(q * count)-th smallest sample, within RELATIVE_ERROR; raises ValueError if there is none."""
        self._forget(now)
        counts: Counter[int] = sum((counts for _, counts in self._slices), Counter())
        if not counts:
            raise ValueError("no time to first token was observed in the window")
        rank = max(1, math.ceil(q * counts.total()))
        below = 0
        for bucket in sorted(counts):
            below += counts[bucket]
            if below >= rank:
                break
        # The value that is equally far, relatively, from both ends of the bucket.
        return 2 * _GAMMA**bucket / (_GAMMA + 1)

    def _forget(self, now: float) -> int:
        """Drop what left the window; returns the number of the slice that holds `now`."""
        current = math.floor(now / self._slice_s)
        while self._slices and self._slices[0][0] <= current - self._kept:
            self._slices.popleft()
        return current


class HedgeBudget:
    """A token bucket: each primary earns `ratio` (up to `cap`), each further attempt spends one.

    It starts empty, so further attempts are never more than `ratio` times the primaries.
    """

    def __init__(self, ratio: float, cap: float) -> None:
        self._ratio = ratio
        self._cap = cap
        self._tokens = 0.0

    def earn(self) -> None:
        self._tokens = min(self._cap, self._tokens + self._ratio)

    def try_spend(self) -> bool:
        """Take a token if there is one; nothing is ever refunded."""
        if self._tokens < 1 - _ROUNDING:
            return False
        self._tokens = max(0.0, self._tokens - 1)
        return True


class HedgePolicy:
    """The delay and the budget, shared by all requests of one host.

    A long prompt takes longer to its first token whoever computes it, so what is usual is known by bands of prompt
    size; the budget is one.
    """

    def __init__(self, settings: HedgingSettings) -> None:
        self._settings = settings
        self._window = TtftWindow(settings.window_s)
        self._bands = [TtftWindow(settings.window_s) for _ in range(len(PROMPT_BANDS) + 1)]
        self._budget = HedgeBudget(settings.budget, settings.budget_cap)

    def on_primary(self, now: float) -> None:
        """A first attempt goes out. Call it once a request."""
        self._budget.earn()

    def observe_ttft(self, ttft_s: float, now: float, prompt_tokens: int = 0) -> None:
        """Record a first token, or what a cancelled attempt had waited; not what a failed one had."""
        self._window.observe(ttft_s, now)
        self._bands[bisect_right(PROMPT_BANDS, prompt_tokens)].observe(ttft_s, now)

    def delay_s(self, now: float, prompt_tokens: int = 0) -> float:
        """How long to wait for a first token of such a prompt before hedging; infinite if hedging is off."""
        settings = self._settings
        if not settings.enabled:
            return math.inf
        band = self._bands[bisect_right(PROMPT_BANDS, prompt_tokens)]
        if band.count(now) < settings.min_samples:
            return settings.first_token_deadline_ms / 1000
        usual_s = band.quantile(1 - settings.budget, now)
        return min(max(usual_s, settings.min_delay_ms / 1000), settings.max_delay_ms / 1000)

    def usual_s(self, now: float) -> float:
        """The median time to first token seen lately; 0 if few were."""
        return self._window.quantile(0.5, now) if self._window.count(now) >= USUAL_SAMPLES else 0.0

    def try_spend(self, now: float) -> bool:
        """Pay for one further attempt, hedge or retry."""
        return self._budget.try_spend()

    def vetoed(self, queue: int | None) -> bool:
        """Whether a hedge is not worth its load: every other replica has so many requests already; None: unknown."""
        return queue is not None and queue >= self._settings.veto_queue


class RacePhase(Enum):
    """READY before the first attempt; WON and LOST are final."""

    READY = "ready"
    RUNNING = "running"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Race:
    """`sent_at[n]` is when attempt n went out; `running` are the attempts neither failed nor cancelled."""

    phase: RacePhase = RacePhase.READY
    sent_at: tuple[float, ...] = ()
    running: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PrimarySent:
    """Attempt 0 went out."""


@dataclass(frozen=True, slots=True)
class HedgeDue:
    """The delay passed."""


@dataclass(frozen=True, slots=True)
class FirstToken:
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt ended without a first token."""

    attempt: int


@dataclass(frozen=True, slots=True)
class ReplicaSilent:
    """Nobody hears anything from this attempt's replica: another is asked whatever the budget says, and it may still
    answer.
    """

    attempt: int


@dataclass(frozen=True, slots=True)
class StartHedge:
    """Start this attempt, on a replica that none of the earlier ones used."""

    attempt: int


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Stop this attempt; `waited_s` is what it had waited for its first token (for `observe_ttft`)."""

    attempt: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class UseAttempt:
    """This attempt's tokens are the reply."""

    attempt: int
    ttft_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Every attempt failed."""


RaceEvent = PrimarySent | HedgeDue | FirstToken | AttemptFailed | ReplicaSilent
RaceCommand = StartHedge | CancelAttempt | UseAttempt | GiveUp
Step = tuple[Race, tuple[RaceCommand, ...]]


def step(race: Race, event: RaceEvent, now: float, try_spend: Callable[[float], bool]) -> Step:
    """Advance one race; what comes too late, or from an attempt no longer running, changes nothing.

    `try_spend` (HedgePolicy's) is asked exactly when a further attempt is wanted. A refusal stops it, unless the
    only running attempt failed: answering the caller is worth exceeding the budget.
    """
    match event:
        case PrimarySent() if race.phase is RacePhase.READY:
            return Race(RacePhase.RUNNING, (now,), (0,)), ()
        case HedgeDue() if _has_room(race) and try_spend(now):
            return _start(race, now)
        case ReplicaSilent(attempt) if attempt in race.running and _has_room(race):
            return _start(race, now)
        case FirstToken(attempt) if attempt in race.running and race.phase is RacePhase.RUNNING:
            losers = tuple(
                CancelAttempt(other, now - race.sent_at[other]) for other in race.running if other != attempt
            )
            won = replace(race, phase=RacePhase.WON, running=(attempt,))
            return won, (UseAttempt(attempt, now - race.sent_at[attempt]), *losers)
        case AttemptFailed(attempt) if attempt in race.running and race.phase is RacePhase.RUNNING:
            return _failed(race, attempt, now, try_spend)
        case _:
            return race, ()


def _failed(race: Race, attempt: int, now: float, try_spend: Callable[[float], bool]) -> Step:
    race = replace(race, running=tuple(other for other in race.running if other != attempt))
    if _has_room(race) and (try_spend(now) or not race.running):
        return _start(race, now)
    if race.running:
        return race, ()
    return replace(race, phase=RacePhase.LOST), (GiveUp(),)


def _has_room(race: Race) -> bool:
    running, sent = len(race.running), len(race.sent_at)
    return race.phase is RacePhase.RUNNING and running < MAX_RUNNING and sent < MAX_ATTEMPTS


def _start(race: Race, now: float) -> Step:
    attempt = len(race.sent_at)
    return replace(race, sent_at=(*race.sent_at, now), running=(*race.running, attempt)), (StartHedge(attempt),)
