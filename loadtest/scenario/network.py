"""The network between a caller and the edge, emulated at the caller: the guide's four routes, relays, jitter and loss.

The wire carries TCP, so nothing is lost for good: a lost segment arrives a round trip later, and everything behind it
waits with it (head of line). One-way delay is half of the round trip. Delay that is constant costs no precision: the
caller's clock runs that much ahead of the wire. Jitter and loss hold frames back in whole frames, rounded.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.scenario.microphone import FRAME_MS
from rejoinder.core.errors import ConfigError

# Three later segments tell a TCP sender of a loss (RFC 5681); at a frame every 20 ms that is this long, and the
# retransmission takes a round trip more.
FAST_RETRANSMIT_S = 0.06


@dataclass(frozen=True, slots=True)
class Route:
    """A round trip is drawn for each call between its bounds; `jitter_ms` is the mean of an exponential, for each
    message; `loss` the share of messages whose first transmission is lost.
    """

    name: str
    rtt_low_ms: float
    rtt_high_ms: float
    jitter_ms: float = 0.0
    loss: float = 0.0
    source: str = ""


_NEAR = (10.0, 30.0)
_GUIDE = "latency guide 1.2"


def _far(name: str, low: float, high: float, loss: float) -> Route:
    """A distance on top of the same-region round trip, as the guide states it."""
    return Route(
        name,
        rtt_low_ms=_NEAR[0] + low,
        rtt_high_ms=_NEAR[1] + high,
        jitter_ms=2.0,
        loss=loss,
        source=f"{_GUIDE}: +{low:g}-{high:g} ms",
    )


ROUTES = {
    "local": Route("local", 0, 0, source="this machine"),
    "same-region": Route("same-region", *_NEAR, 1.0, 0.0005, f"{_GUIDE}: 10-30 ms"),
    "us-east-west": _far("us-east-west", 60, 80, 0.001),
    "us-europe": _far("us-europe", 80, 150, 0.002),
    "us-asia": _far("us-asia", 150, 250, 0.005),
}
"""Round trips are the guide's; jitter and loss are ours, typical of wired access."""

RELAY_MS = (20.0, 100.0)
"""What a relay adds to the round trip (latency guide 1.2)."""


def route(name: str) -> Route:
    """A route by name, `NAME+relay` for the relayed one; raises ConfigError if there is none such."""
    plain, plus, relay = name.partition("+")
    if plain not in ROUTES or (plus and relay != "relay"):
        raise ConfigError(
            f"no route {name!r}.", f"Use one of {', '.join(ROUTES)}, with +relay if relayed.", "--set regions"
        )
    found = ROUTES[plain]
    if not plus:
        return found
    low, high = found.rtt_low_ms + RELAY_MS[0], found.rtt_high_ms + RELAY_MS[1]
    return Route(
        name,
        rtt_low_ms=low,
        rtt_high_ms=high,
        jitter_ms=found.jitter_ms,
        loss=found.loss,
        source=f"{found.source}; relay +20-100 ms",
    )


def weighted(region: str) -> tuple[str, float]:
    """`NAME` or `NAME=WEIGHT`; raises ConfigError naming what is wrong."""
    name, equals, share = region.partition("=")
    try:
        weight = float(share) if equals else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise ConfigError(
            f"{region!r} has no positive weight.", "Write NAME=WEIGHT, for example us-europe=2.", "--set regions"
        )
    return route(name).name, weight


class Path:
    """One call's network; `up_s` and `down_s` are constant, `late_s` is drawn for each message."""

    def __init__(self, by: Route, draw: random.Random) -> None:
        self.rtt_s = draw.uniform(by.rtt_low_ms, by.rtt_high_ms) / 1000
        self.up_s = self.down_s = self.rtt_s / 2
        self._jitter_s = by.jitter_ms / 1000
        self._loss = by.loss
        self._draw = draw

    @property
    def steady(self) -> bool:
        """Whether no message is ever late."""
        return not (self._jitter_s or self._loss)

    def late_s(self) -> float:
        """How much later than the constant delay this message arrives, were nothing ahead of it late."""
        if self.steady:
            return 0.0
        late = self._draw.expovariate(1 / self._jitter_s) if self._jitter_s else 0.0
        return late + (self.rtt_s + FAST_RETRANSMIT_S if self._draw.random() < self._loss else 0.0)


class Uplink:
    """A caller's way up: messages that leave in their order, none before one that is ahead of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: deque[tuple[float, bytes]] = deque()
        self._leaves_at = 0.0

    def leaving(self, message: bytes | None, due: float) -> Sequence[bytes]:
        """What leaves at this deadline, at which `message` was spoken (None: nothing was)."""
        if self._path.steady:
            return (message,) if message else ()
        if message:
            self._leaves_at = max(self._leaves_at, due + self._path.late_s())
            self._held.append((self._leaves_at, message))
        gone: list[bytes] = []
        # At the nearest deadline: to wait for the next one would make the least jitter cost a whole frame.
        while self._held and self._held[0][0] < due + FRAME_MS / 2000:
            gone.append(self._held.popleft()[1])
        return gone
