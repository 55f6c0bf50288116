"""Simulation of several HAProxies in front of one pool of session hosts: refused callers, compared with Erlang B.

Each HAProxy sees only its own connections. It gives a call to a host by its balancing algorithm. If the host refuses
with 503, HAProxy tries another one, `retries` times at most. The hosts decide with the product's `Admission`, and count
arriving calls for the autoscaling as `actors.host.Host` does.

The choices are modelled on HAProxy 2.8: a retry avoids only the host that has just refused. `leastconn` takes the host
with the fewest connections of this HAProxy; of several, the one whose number changed longest ago. `random(2)` takes the
better of two random hosts. `roundrobin` takes the next one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol

from benchmarks.scaling.virtual_clock import EventQueue
from rejoinder.core.capacity.erlang import blocking
from rejoinder.core.resilience.admission import Admission
from rejoinder.core.resilience.redispatch import refused_part

CALL_S = 180.0
"""Mean length of a call in seconds, exponentially distributed."""
WARM_UP_S = 6 * CALL_S
"""Seconds before the measurement. The system starts without calls."""
NO_LAG_S = 0.1
"""Limit of the event loop's lag, which is always 0 here."""


@dataclass(frozen=True, slots=True)
class EntryPlan:
    """What is simulated.

    Attributes:
        hosts: Number of session hosts.
        places: Places of one host.
        balance: HAProxy's algorithm: "leastconn", "random(2)" or "roundrobin".
        retries: Further attempts after a refusal.
        entries: Number of HAProxies. Each caller uses a random one.
        load: Offered load as a share of all places.
        reload_s: Seconds between two reloads of all HAProxies. A new process of HAProxy does not know the connections
            of the old one. 0 for none.
    """

    hosts: int
    places: int
    balance: str
    retries: int
    entries: int = 3
    load: float = 0.9
    reload_s: float = 0.0

    @property
    def erlang_b(self) -> float:
        """Share of the callers that one pool of all places refuses (Erlang B)."""
        return blocking(self.load * self.hosts * self.places, self.hosts * self.places)


class Balancer(Protocol):
    """How one HAProxy chooses hosts."""

    def choose(self, avoid: int | None) -> int:
        """Return the number of a host. `avoid` has just refused the call, None for the first attempt."""
        ...

    def changed(self, host: int, connections: int) -> None:
        """Add `connections` to the number of connections to a host; it may be negative."""
        ...


class LeastConnections:
    """HAProxy's `leastconn`."""

    def __init__(self, hosts: int, rng: random.Random) -> None:
        order = rng.sample(range(hosts), hosts)
        self._changes = count(hosts)
        self._keys = [(0, number) for number in order]

    def choose(self, avoid: int | None) -> int:
        """Return the host with the fewest connections, and list it behind its equals, as an attempt does."""
        best = min((key, host) for host, key in enumerate(self._keys) if host != avoid or len(self._keys) == 1)[1]
        self.changed(best, 0)
        return best

    def changed(self, host: int, connections: int) -> None:
        """Add to the number of connections to a host."""
        self._keys[host] = (self._keys[host][0] + connections, next(self._changes))


class RandomOfTwo:
    """HAProxy's `random(2)`."""

    def __init__(self, hosts: int, rng: random.Random) -> None:
        self._rng = rng
        self._connections = [0] * hosts

    def choose(self, avoid: int | None) -> int:
        """Return the one of two random hosts that has fewer connections. They may be the same host."""
        allowed = [host for host in range(len(self._connections)) if host != avoid] or [0]
        pair = (self._rng.choice(allowed), self._rng.choice(allowed))
        return min(pair, key=lambda host: self._connections[host])

    def changed(self, host: int, connections: int) -> None:
        """Add to the number of connections to a host."""
        self._connections[host] += connections


class RoundRobin:
    """HAProxy's `roundrobin`, with equal weights."""

    def __init__(self, hosts: int, rng: random.Random) -> None:
        self._order = rng.sample(range(hosts), hosts)
        self._next = 0

    def choose(self, avoid: int | None) -> int:
        """Return the next host that is not to be avoided."""
        for _ in range(2):
            host = self._order[self._next]
            self._next = (self._next + 1) % len(self._order)
            if host != avoid:
                break
        return host

    def changed(self, host: int, connections: int) -> None:
        """Do nothing: the connections do not matter."""


BALANCERS: dict[str, Callable[[int, random.Random], Balancer]] = {
    "leastconn": LeastConnections,
    "random(2)": RandomOfTwo,
    "roundrobin": RoundRobin,
}


@dataclass(slots=True)
class EntryCounts:
    """What was measured.

    Attributes:
        callers: Callers.
        refused: Callers that were refused in the end.
        pool_refused: Callers that one pool of all places refuses. They are the same, with calls of the same length.
        attempts: Handshakes that reached a host.
        counted: Arrivals that the hosts counted for the autoscaling.
        spread: Sum over the callers of the difference between the largest and the smallest number of calls of a host.
    """

    callers: int = 0
    refused: int = 0
    pool_refused: int = 0
    attempts: int = 0
    counted: float = 0.0
    spread: int = 0

    @property
    def excess_points(self) -> float:
        """Percentage points by which more callers were refused than by one pool."""
        return 100 * (self.refused - self.pool_refused) / self.callers


class EntrySimulation:
    """Callers, HAProxies and hosts. Call `run`."""

    def __init__(self, plan: EntryPlan, seed: int = 1) -> None:
        self._plan, self._clock, self._counts = plan, EventQueue(), EntryCounts()
        # The callers have their own random numbers, so that they are the same for all ways of choosing a host.
        self._callers, self._choices = random.Random(seed), random.Random(seed + 1)
        self._admission = Admission(plan.places, NO_LAG_S)
        self._taken = [0] * plan.hosts
        self._pooled = 0
        self._rate = plan.load * plan.hosts * plan.places / CALL_S
        self._entries = self._new_entries()

    def _new_entries(self) -> list[Balancer]:
        made = BALANCERS[self._plan.balance]
        return [made(self._plan.hosts, self._choices) for _ in range(self._plan.entries)]

    def run(self, callers: int) -> EntryCounts:
        """Simulate until about so many callers have come after the warm-up, and return what they met."""
        self._clock.after(self._callers.expovariate(self._rate), self._arrive)
        if self._plan.reload_s:
            self._clock.after(self._plan.reload_s, self._reload)
        self._clock.run(WARM_UP_S)
        self._counts = EntryCounts()
        self._clock.run(WARM_UP_S + callers / self._rate)
        return self._counts

    def _reload(self) -> None:
        self._entries = self._new_entries()
        self._clock.after(self._plan.reload_s, self._reload)

    def _arrive(self) -> None:
        self._clock.after(self._callers.expovariate(self._rate), self._arrive)
        call_s, entry = self._callers.expovariate(1 / CALL_S), self._callers.randrange(self._plan.entries)
        self._counts.callers += 1
        self._counts.spread += max(self._taken) - min(self._taken)
        if self._pooled < self._plan.hosts * self._plan.places:
            self._pooled += 1
            self._clock.after(call_s, self._leave_pool)
        else:
            self._counts.pool_refused += 1
        self._counts.refused += not self._admitted(self._entries[entry], call_s)

    def _admitted(self, entry: Balancer, call_s: float) -> bool:
        host: int | None = None
        for _ in range(1 + self._plan.retries):
            host = entry.choose(host)
            self._counts.attempts += 1
            if self._admission.refusal(self._taken[host]) is None:
                self._counts.counted += 1
                self._taken[host] += 1
                entry.changed(host, 1)
                self._clock.after(call_s, partial(self._leave, entry, host))
                return True
            self._counts.counted += refused_part(self._plan.retries)
        return False

    def _leave(self, entry: Balancer, host: int) -> None:
        self._taken[host] -= 1
        entry.changed(host, -1)

    def _leave_pool(self) -> None:
        self._pooled -= 1


HEADER = (
    "| hosts x places | reload | balance | retries | refused | of one pool | difference, points | Erlang B "
    "| attempts per caller | counted arrivals per caller | spread of calls |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def row(plan: EntryPlan, callers: int, seed: int) -> str:
    """Simulate a plan and return the line of the table."""
    done = EntrySimulation(plan, seed).run(callers)
    reloads = f"{plan.reload_s:.0f} s" if plan.reload_s else "never"
    refused, pool_refused = done.refused / done.callers, done.pool_refused / done.callers
    return (
        f"| {plan.hosts} x {plan.places} | {reloads} | {plan.balance} | {plan.retries} | {refused:.2%} "
        f"| {pool_refused:.2%} | {done.excess_points:+.2f} | {plan.erlang_b:.2%} "
        f"| {done.attempts / done.callers:.2f} | {done.counted / done.callers:.2f} | {done.spread / done.callers:.1f} |"
    )


SYSTEMS = ((6, 10), (6, 100), (20, 10), (100, 10))
"""Simulated numbers of hosts, and of places of one host."""


def report(callers: int, seed: int) -> Iterator[str]:
    """Yield the lines of the table."""
    yield from HEADER
    for hosts, places in SYSTEMS:
        for reload_s in (0.0, 60.0):
            for balance in BALANCERS:
                for retries in (0, 3, 7):
                    yield row(EntryPlan(hosts, places, balance, retries, reload_s=reload_s), callers, seed)
