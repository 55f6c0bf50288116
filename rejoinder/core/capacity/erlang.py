"""The two classical queues of a voice system: sessions that are refused, and turns that wait.

A session that finds the cluster full is refused, it does not queue: Erlang B. A turn's request that finds all slots of
a stage busy waits for one: Erlang C, whose exponential service Allen and Cunneen correct for any service distribution
by its squared coefficient of variation. Offered load is in Erlangs: arrivals a second times seconds of holding.

All of it by the recursion B(0) = 1, B(n) = a B(n-1) / (n + a B(n-1)), which neither overflows nor needs factorials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_SLOTS = 1_000_000
"""Where a search for slots ends: far beyond any cluster, so that a senseless input ends too."""


def blocking(offered: float, slots: int) -> float:
    """Erlang B: the share of Poisson arrivals that find all `slots` busy and are refused."""
    _check(offered, slots)
    if offered == 0:
        return 0.0 if slots else 1.0
    blocked = 1.0
    for n in range(1, slots + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked


def waiting(offered: float, slots: int) -> float:
    """Erlang C: the share of Poisson arrivals that must wait; 1 if the load exceeds the slots."""
    blocked = blocking(offered, slots)
    if offered >= slots:
        return 1.0
    return slots * blocked / (slots - offered * (1 - blocked))


def slots_for_blocking(offered: float, most: float) -> int:
    """The fewest slots that refuse at most the share `most`; raises ValueError unless 0 < most <= 1."""
    if not 0 < most <= 1:
        raise ValueError(f"a share of refused sessions lies in (0, 1], not {most}")
    _check(offered, 0)
    slots, blocked = 0, 1.0
    while blocked > most:
        if slots == MAX_SLOTS:
            raise ValueError(f"{offered:g} Erlangs need more than {MAX_SLOTS} slots")
        slots += 1
        blocked = offered * blocked / (slots + offered * blocked)
    return slots


@dataclass(frozen=True, slots=True)
class Queue:
    """M/G/c: Poisson requests, `slots` of mean holding time `service_s` whose squared coefficient of variation is
    `scv` (0 fixed, 1 exponential).
    """

    arrivals_per_s: float
    service_s: float
    slots: int
    scv: float = 1.0

    @property
    def offered(self) -> float:
        """In Erlangs."""
        return self.arrivals_per_s * self.service_s

    @property
    def utilisation(self) -> float:
        return self.offered / self.slots

    @property
    def mean_wait_s(self) -> float:
        """Allen and Cunneen's approximation, exact for exponential service; infinite without a steady state."""
        if self.utilisation >= 1:
            return math.inf
        spare_per_s = (self.slots - self.offered) / self.service_s if self.service_s else math.inf
        return waiting(self.offered, self.slots) / spare_per_s * (1 + self.scv) / 2

    def wait_s(self, quantile: float) -> float:
        """The wait that the share `quantile` of requests does not exceed; 0 if so many do not wait at all.

        Those who wait are taken to wait exponentially long, which they do exactly when service is exponential.
        """
        if not 0 <= quantile < 1:
            raise ValueError(f"a quantile lies in [0, 1), not {quantile}")
        if self.utilisation >= 1:
            return math.inf
        wait = waiting(self.offered, self.slots)
        if wait <= 1 - quantile:
            return 0.0
        return self.mean_wait_s / wait * math.log(wait / (1 - quantile))


def slots_for_wait(queue: Queue, quantile: float, most_s: float) -> int:
    """The fewest slots (those of `queue` do not matter) at which the quantile of the wait is at most `most_s`."""
    if most_s < 0:
        raise ValueError(f"nobody waits {most_s} s: the target leaves no time to wait in")
    low = max(1, math.floor(queue.offered) + 1)
    step = 1
    while _with(queue, low + step).wait_s(quantile) > most_s:
        step *= 2
        if low + step > MAX_SLOTS:
            raise ValueError(f"{queue.offered:g} Erlangs need more than {MAX_SLOTS} slots")
    high = low + step
    while low < high:
        middle = (low + high) // 2
        if _with(queue, middle).wait_s(quantile) <= most_s:
            high = middle
        else:
            low = middle + 1
    return low


def _with(queue: Queue, slots: int) -> Queue:
    return Queue(queue.arrivals_per_s, queue.service_s, slots, queue.scv)


def _check(offered: float, slots: int) -> None:
    if not (offered >= 0 and math.isfinite(offered)):
        raise ValueError(f"the offered load is a finite number of Erlangs, not {offered}")
    if slots < 0:
        raise ValueError(f"there are no {slots} slots")
