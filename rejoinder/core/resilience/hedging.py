r"""Hedged requests: when a second attempt is sent, how many are allowed, and which attempt is used.

A hedge is a second attempt on another replica while the first one is still running. It shortens the tail of the time to
first token (TTFT), for example if a replica is stalled or its queue is long. It does not help if the request itself is
slow, and its extra load can slow down other requests. Three mechanisms limit the extra load.

Delay. A hedge is sent after the (1 - budget) quantile of recent TTFTs, so only the slowest few requests are hedged at
any load. With too few samples, a fixed deadline applies. The window has three slices of ten seconds, as in Finagle's
BackupRequestFilter: long enough to hold samples, and short enough to follow the load. Cancelled attempts are observed
too, with the time they had waited. Otherwise the window would contain only fast answers, and the delay would fall.

Budget. Every primary attempt earns `budget` tokens, and every further attempt, hedge or retry, costs one token. A retry
without which there would be no answer is sent without a token, too. It leaves a debt, so that hedges pause. A delay
alone does not limit the load: in a saturated cluster every request is slow, so every request would be hedged. In a
simulation at utilization 0.7 without cancellation, 98% of the requests were hedged and the cluster collapsed. With the
budget it did not.

Race. `step` is the state machine of one request. The first attempt that produces a token is used, and the others are
cancelled. There is no switch after the first token, because its audio is already being played.

    READY -- PrimarySent --> RUNNING -- FirstToken --> WON
                              |    \
         HedgeDue, AttemptFailed    +-- AttemptFailed, none left --> LOST

The histogram of the window has logarithmic buckets, like DDSketch. A quantile is within RELATIVE_ERROR of the exact
order statistic at any scale, and a slice takes a few hundred integers.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, deque
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from rejoinder.core.settings.settings import HedgingSettings

RELATIVE_ERROR = 0.01
"""Largest relative error of a quantile of `TtftWindow`."""

SLICES = 3
"""Number of slices of the window. When a new slice begins, the oldest one is dropped, as in Finagle."""

PROMPT_BANDS = (256, 1024, 4096)
"""Bounds between the bands of prompt size, in tokens. The four bands are a voice agent's first turns, its later turns,
prompts with documents, and longer prompts."""

CHARACTERS_A_TOKEN = 4
"""Approximate characters per token of English text. This is exact enough for bands that differ by a factor of four."""

MAX_ATTEMPTS = 3
"""Maximum number of attempts of a request: the first and two hedges or retries. gRPC's hedging has a limit of 5."""

USUAL_SAMPLES = 10
"""Minimum number of samples for a median TTFT."""

MAX_RUNNING = 2
"""Maximum number of attempts that run at the same time. A third would add load to a stage that is overloaded."""

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_SHORTEST_S = 1e-6
# Tolerance for floating-point errors. A budget of 0.1 must give one token after ten requests, although the
# floating-point sum of ten times 0.1 is a little less than 1.
_ROUNDING = 1e-9


def prompt_tokens(characters: int) -> int:
    """Return the approximate number of tokens of a prompt of this many characters."""
    return characters // CHARACTERS_A_TOKEN


class TtftWindow:
    """Sliding window of times to first token, for quantiles. Other durations can be stored as well.

    The window consists of slices, three by default, and drops the oldest slice as a whole. With three slices it covers
    between two thirds and all of the last `window_s` seconds.
    """

    def __init__(self, window_s: float, slices: int = SLICES) -> None:
        self._slice_s = window_s / slices
        self._kept = slices
        self._slices: deque[tuple[int, Counter[int]]] = deque()

    def observe(self, ttft_s: float, now: float) -> None:
        """Add one time to first token, in seconds, observed at monotonic time `now`."""
        current = self._forget(now)
        if not self._slices or self._slices[-1][0] < current:
            self._slices.append((current, Counter()))
        self._slices[-1][1][math.ceil(math.log(max(ttft_s, _SHORTEST_S), _GAMMA))] += 1

    def count(self, now: float) -> int:
        """Return the number of samples in the window."""
        self._forget(now)
        return sum(counts.total() for _, counts in self._slices)

    def quantile(self, q: float, now: float) -> float:
        """Return the `q` quantile of the samples in seconds, within RELATIVE_ERROR.

        With n samples, this is the ceil(q * n)-th smallest sample.

        Raises:
            ValueError: The window is empty.
        """
        self._forget(now)
        counts: Counter[int] = sum((counts for _, counts in self._slices), Counter())
        if not counts:
            raise ValueError("no time to first token was observed in the window")
        rank = max(1, math.ceil(q * counts.total()))
        cumulative = 0
        for bucket in sorted(counts):
            cumulative += counts[bucket]
            if cumulative >= rank:
                break
        # The value whose relative error is the same for a sample at the lower and at the upper end of the bucket.
        return 2 * _GAMMA**bucket / (_GAMMA + 1)

    def _forget(self, now: float) -> int:
        """Drop the slices that are older than the window, and return the index of the slice that contains `now`."""
        current = math.floor(now / self._slice_s)
        while self._slices and self._slices[0][0] <= current - self._kept:
            self._slices.popleft()
        return current


class HedgeBudget:
    """Token bucket that limits further attempts, which are hedges and retries.

    Each primary attempt earns `ratio` tokens, up to `cap` tokens in the bucket, and each further attempt costs one
    token. The bucket starts empty, so there are never more than `ratio` optional attempts per primary attempt, for any
    number of hosts. A necessary attempt (`charge`) may leave a debt of up to `cap` tokens.
    """

    def __init__(self, ratio: float, cap: float) -> None:
        self._ratio = ratio
        self._cap = cap
        self._tokens = 0.0

    def earn(self) -> None:
        """Add the tokens of one primary attempt."""
        self._tokens = min(self._cap, self._tokens + self._ratio)

    def try_spend(self) -> bool:
        """Take one token and return True, or return False if there is none. Tokens are never refunded."""
        if not self.affordable:
            return False
        self._tokens = max(0.0, self._tokens - 1)
        return True

    def charge(self) -> None:
        """Take one token for an attempt that is sent in any case."""
        self._tokens = max(-self._cap, self._tokens - 1)

    @property
    def affordable(self) -> bool:
        """True if `try_spend` would return True."""
        return self._tokens >= 1 - _ROUNDING


class HedgePolicy:
    """Delay and budget of hedges, shared by all requests of one host. Not thread-safe.

    Long prompts have a longer TTFT on every replica, so the delay is computed separately for each band of prompt sizes
    (PROMPT_BANDS). There is one budget for all bands. Times are monotonic seconds.
    """

    def __init__(self, settings: HedgingSettings) -> None:
        self._settings = settings
        self._window = TtftWindow(settings.window_s)
        self._bands = [TtftWindow(settings.window_s) for _ in range(len(PROMPT_BANDS) + 1)]
        self._budget = HedgeBudget(settings.budget, settings.budget_cap)

    def on_primary(self, now: float) -> None:
        """Record that a request sends its first attempt. Call it once per request."""
        self._budget.earn()

    def observe_ttft(self, ttft_s: float, now: float, prompt_tokens: int = 0) -> None:
        """Record the TTFT of an attempt, or the time that a cancelled attempt had waited.

        Do not record failed attempts.
        """
        self._window.observe(ttft_s, now)
        self._bands[bisect_right(PROMPT_BANDS, prompt_tokens)].observe(ttft_s, now)

    def delay_s(self, now: float, prompt_tokens: int = 0) -> float:
        """Return the seconds to wait for a first token before a hedge is sent, or infinity if hedging is off.

        It is the (1 - budget) quantile of recent TTFTs, limited to the configured minimum and maximum. With too few
        samples it is the configured deadline of the first token.

        Args:
            now: Monotonic time in seconds.
            prompt_tokens: Size of the request's prompt in tokens. Only TTFTs of prompts in the same size band count.
        """
        settings = self._settings
        if not settings.enabled:
            return math.inf
        band = self._bands[bisect_right(PROMPT_BANDS, prompt_tokens)]
        if band.count(now) < settings.min_samples:
            return settings.first_token_deadline_ms / 1000
        tail_s = band.quantile(1 - settings.budget, now)
        return min(max(tail_s, settings.min_delay_ms / 1000), settings.max_delay_ms / 1000)

    def usual_s(self, now: float) -> float:
        """Return the median of recent TTFTs in seconds, or 0 if there are fewer than USUAL_SAMPLES samples."""
        return self._window.quantile(0.5, now) if self._window.count(now) >= USUAL_SAMPLES else 0.0

    def spend(self, *, must: bool = False) -> bool:
        """Take one token of the budget for a further attempt, and return True if the attempt is sent.

        With `must` the attempt is sent in any case, and the budget may get into debt. Without `must`, none is sent if
        hedging is off.
        """
        if must:
            self._budget.charge()
            return True
        return self._settings.enabled and self._budget.try_spend()

    @property
    def affordable(self) -> bool:
        """True if hedging is on and the budget has a token for an optional attempt."""
        return self._settings.enabled and self._budget.affordable

    def vetoed(self, queue: int | None) -> bool:
        """Return True if a hedge should not be sent, because it would only wait in another replica's queue.

        A hedge would wait if every other replica has at least `veto_queue` (a setting) requests.

        Args:
            queue: Number of requests at the least busy other replica. None if it is unknown: the result is then False.
        """
        return queue is not None and queue >= self._settings.veto_queue


class RacePhase(Enum):
    """Phase of a hedged request.

    READY: no attempt has been sent. RUNNING: attempts are running, none has a token. WON: an attempt has produced a
    token. LOST: all attempts have failed.
    """

    READY = "ready"
    RUNNING = "running"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Race:
    """State of one hedged request, whose attempts race for the first token.

    Attributes:
        phase: The phase of the request.
        sent_at: The monotonic time in seconds at which each attempt was sent, by number of the attempt.
        running: The numbers of the attempts that have neither failed nor been cancelled.
    """

    phase: RacePhase = RacePhase.READY
    sent_at: tuple[float, ...] = ()
    running: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PrimarySent:
    """The first attempt of the request (number 0) has been sent."""


@dataclass(frozen=True, slots=True)
class HedgeDue:
    """The delay after which a hedge may be sent has passed without a first token."""


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The attempt with this number has produced its first token."""

    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt with this number has ended without a first token.

    `retryable` is False if another attempt must not be sent now: the request or the configuration is wrong, or the
    server asks to wait.
    """

    attempt: int
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class ReplicaSilent:
    """The replica of this attempt has sent no token to this host for the idle timeout.

    Another attempt is sent if the hedging budget allows it, or if the silence is confirmed: the replica's circuit has
    opened. This attempt keeps running and may still win.
    """

    attempt: int
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class StartHedge:
    """Start the attempt with this number, on a replica that no earlier attempt of the request has used."""

    attempt: int


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """Cancel this attempt, because another attempt has won.

    `waited_s` is how many seconds it has waited for its first token. Pass it to `HedgePolicy.observe_ttft`.
    """

    attempt: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class UseAttempt:
    """Use the tokens of this attempt as the reply. `ttft_s` is its time to first token in seconds."""

    attempt: int
    ttft_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Report that every attempt has failed."""


RaceEvent = PrimarySent | HedgeDue | FirstToken | AttemptFailed | ReplicaSilent
RaceCommand = StartHedge | CancelAttempt | UseAttempt | GiveUp
Step = tuple[Race, tuple[RaceCommand, ...]]


class Spend(Protocol):
    """`HedgePolicy.spend`, or a function with its arguments and its result."""

    def __call__(self, *, must: bool = False) -> bool:
        """Charge one further attempt, and return True if it is sent."""
        ...


def step(race: Race, event: RaceEvent, now: float, spend: Spend) -> Step:
    """Return the state of a hedged request after one event, and the commands that the event causes.

    An event changes nothing if the request has already won or lost, or if its attempt is not running.

    Args:
        race: The state before the event.
        event: The event.
        now: Monotonic time of the event, in seconds.
        spend: `HedgePolicy.spend`. It is called only if a further attempt is needed. A further attempt must be sent if
            none is running, or if the only one runs on a silent replica: an answer is worth a debt.
    """
    match event:
        case PrimarySent() if race.phase is RacePhase.READY:
            return Race(RacePhase.RUNNING, (now,), (0,)), ()
        case HedgeDue() if _has_room(race) and spend():
            return _start(race, now)
        case ReplicaSilent(attempt, confirmed) if attempt in race.running and _has_room(race) and spend(must=confirmed):
            return _start(race, now)
        case FirstToken(attempt) if attempt in race.running and race.phase is RacePhase.RUNNING:
            losers = tuple(
                CancelAttempt(other, now - race.sent_at[other]) for other in race.running if other != attempt
            )
            won = replace(race, phase=RacePhase.WON, running=(attempt,))
            return won, (UseAttempt(attempt, now - race.sent_at[attempt]), *losers)
        case AttemptFailed(attempt, retryable) if attempt in race.running and race.phase is RacePhase.RUNNING:
            return _failed(race, attempt, now, spend if retryable else None)
        case _:
            return race, ()


def _failed(race: Race, attempt: int, now: float, spend: Spend | None) -> Step:
    """Return the state and the commands after an attempt has failed.

    Args:
        race: The state before the failure.
        attempt: Number of the failed attempt.
        now: Monotonic time in seconds.
        spend: `HedgePolicy.spend`, for the cost of another attempt. None: no other attempt is sent.
    """
    race = replace(race, running=tuple(other for other in race.running if other != attempt))
    if spend and _has_room(race) and spend(must=not race.running):
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
