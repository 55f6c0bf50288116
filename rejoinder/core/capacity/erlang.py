"""Two queueing formulas for a voice system: Erlang B for refused sessions, Erlang C for waiting requests.

A session that finds the cluster full is refused, so Erlang B applies. A request that finds all slots of a stage busy
waits, so Erlang C applies. Erlang C assumes exponential service. Allen and Cunneen's formula corrects it for other
distributions by their squared coefficient of variation. Offered load is in Erlangs: arrivals per second times the
seconds that each arrival occupies a slot.

Both use a recursion for B(n), the share of arrivals that n slots refuse at the offered load a. It is B(0) = 1 and
B(n) = a B(n-1) / (n + a B(n-1)). Unlike the closed formula with factorials, the recursion does not overflow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_SLOTS = 1_000_000
"""Limit of a search for slots: far beyond any cluster, so that a search with invalid input ends too."""


def blocking(offered: float, slots: int) -> float:
    """Return the share of Poisson arrivals that find all slots busy and are refused (Erlang B).

    Args:
        offered: Offered load in Erlangs.
        slots: Number of slots.

    Raises:
        ValueError: The load is not a finite number of at least 0, or there are fewer than 0 slots.
    """
    _check(offered, slots)
    if offered == 0:
        return 0.0 if slots else 1.0
    blocked = 1.0
    for n in range(1, slots + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked


def waiting(offered: float, slots: int) -> float:
    """Return the share of Poisson arrivals that must wait for a slot (Erlang C).

    It is 1 if the offered load reaches the number of slots.

    Args:
        offered: Offered load in Erlangs.
        slots: Number of slots.

    Raises:
        ValueError: The load is not a finite number of at least 0, or there are fewer than 0 slots.
    """
    blocked = blocking(offered, slots)
    if offered >= slots:
        return 1.0
    return slots * blocked / (slots - offered * (1 - blocked))


def slots_for_blocking(offered: float, most: float) -> int:
    """Return the smallest number of slots that refuse at most the share `most` of the arrivals.

    Args:
        offered: Offered load in Erlangs.
        most: Maximum share of refused arrivals, in (0, 1].

    Raises:
        ValueError: `most` is not in (0, 1], or more than MAX_SLOTS are needed.
    """
    if not 0 < most <= 1:
        raise ValueError(f"the share of refused sessions must be in (0, 1], not {most}")
    _check(offered, 0)
    slots, blocked = 0, 1.0
    while blocked > most:
        if slots == MAX_SLOTS:
            raise ValueError(f"{offered:g} Erlangs need more than {MAX_SLOTS} slots")
        slots += 1
        blocked = offered * blocked / (slots + offered * blocked)
    return slots


def blocking_in_reach(offered: float, hosts: int, places: int, reach: int) -> float:
    """Return the share of callers that are refused if each caller is sent to at most `reach` of the hosts in turn.

    The hosts do not share their places: a caller is refused if the hosts that it reaches are full, although others have
    places. The result is that of Erlang B for one group of `reach` hosts with its part of the load. It is an upper
    bound, because the groups of different callers overlap and so share their places. With at most `reach` hosts they
    are one pool, and the result is exact.

    Args:
        offered: Offered load of all hosts together, in Erlangs.
        hosts: Number of hosts.
        places: Places of one host.
        reach: Most hosts that one caller is sent to.

    Raises:
        ValueError: The load is not a finite number of at least 0, or there are no hosts, places or attempts.
    """
    if min(hosts, places, reach) < 1:
        raise ValueError(f"{hosts} hosts, {places} places and a reach of {reach} must be at least 1")
    group = min(hosts, reach)
    return blocking(offered * group / hosts, group * places)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with Poisson arrivals, any service time and several slots (M/G/c).

    Attributes:
        arrivals_per_s: Requests per second.
        service_s: Mean time that a request occupies a slot, in seconds.
        slots: Number of slots.
        scv: Squared coefficient of variation of the service time: 0 if it is fixed, 1 if it is exponential.
    """

    arrivals_per_s: float
    service_s: float
    slots: int
    scv: float = 1.0

    @property
    def offered(self) -> float:
        """Offered load in Erlangs."""
        return self.arrivals_per_s * self.service_s

    @property
    def utilisation(self) -> float:
        """Mean share of the slots in use. At 1 or more the queue grows without limit."""
        return self.offered / self.slots

    @property
    def mean_wait_s(self) -> float:
        """Mean wait in seconds, by Allen and Cunneen's approximation, which is exact for exponential service.

        It is infinite if the utilisation is 1 or more.
        """
        if self.utilisation >= 1:
            return math.inf
        spare_per_s = (self.slots - self.offered) / self.service_s if self.service_s else math.inf
        return waiting(self.offered, self.slots) / spare_per_s * (1 + self.scv) / 2

    def wait_s(self, quantile: float) -> float:
        """Return a quantile of the wait in seconds, over all requests, for example the 95th percentile for 0.95.

        It is 0 if at least the share `quantile` of the requests does not wait. It is infinite if the utilisation is 1
        or more. For requests that wait, the formula assumes an exponential distribution. This is exact for exponential
        service.

        Raises:
            ValueError: `quantile` is not in [0, 1).
        """
        if not 0 <= quantile < 1:
            raise ValueError(f"the quantile must be in [0, 1), not {quantile}")
        if self.utilisation >= 1:
            return math.inf
        share = waiting(self.offered, self.slots)
        if share <= 1 - quantile:
            return 0.0
        return self.mean_wait_s / share * math.log(share / (1 - quantile))


def slots_for_wait(queue: Queue, quantile: float, most_s: float) -> int:
    """Return the smallest number of slots with which the quantile of the wait is at most `most_s` seconds.

    Args:
        queue: Arrivals and service times. Its own number of slots is ignored.
        quantile: Quantile of the wait, in [0, 1).
        most_s: Longest wait in seconds.

    Raises:
        ValueError: `most_s` is negative, or more than MAX_SLOTS are needed.
    """
    if most_s < 0:
        raise ValueError(f"the longest wait must not be negative, but is {most_s} s: the target leaves no time to wait")
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
        raise ValueError(f"the offered load must be a finite number of Erlangs of at least 0, not {offered}")
    if slots < 0:
        raise ValueError(f"the number of slots must not be negative, but is {slots}")
