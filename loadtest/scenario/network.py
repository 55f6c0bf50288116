"""The network between a caller and the server's end (the edge), emulated at the caller.

The routes are the four of the latency guide and `local`, each with or without a relay. The emulated connection is TCP,
so loss delays messages but never drops them. A lost segment arrives one round trip and
`FAST_RETRANSMIT_S` later, and blocks all later messages (head-of-line blocking).

The one-way delay is half of the round-trip time. This constant delay is added to the caller's clock, so it is exact.
Jitter and loss hold frames back by whole 20 ms frames, rounded to the nearest.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from loadtest.scenario.microphone import FRAME_MS
from rejoinder.core.errors import ConfigError

# Time in seconds until a loss is noticed. TCP fast retransmit (RFC 5681) needs three later segments, which take 60 ms
# at one frame every 20 ms. The retransmission itself takes one more round trip.
FAST_RETRANSMIT_S = 0.06


@dataclass(frozen=True, slots=True)
class Route:
    """A kind of network between a caller and the server, with its delays and its loss.

    Attributes:
        name: Name of the route in `Scenario.regions`, ending in `+relay` for a relayed route.
        rtt_low_ms: Lower bound of the round-trip time in milliseconds. Each call draws its round-trip time uniformly
            between the bounds.
        rtt_high_ms: Upper bound of the round-trip time in milliseconds.
        jitter_ms: Mean in milliseconds of an exponential extra delay, drawn for each message.
        loss: Share of messages whose first transmission is lost, 0 to 1.
        source: Source of the bounds of the round-trip time, in words.
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
    """Return a long-distance route.

    Args:
        name: Name of the route.
        low: Smallest round-trip time in milliseconds that the latency guide adds for the distance to that of a nearby
            server.
        high: Largest such addition in milliseconds.
        loss: Share of messages whose first transmission is lost, 0 to 1.
    """
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
"""Routes by name. Round-trip times are the guide's. Jitter and loss are our choice, typical of wired access."""

RELAY_MS = (20.0, 100.0)
"""Bounds in milliseconds of the round-trip time that a relay adds (latency guide 1.2)."""


def route(name: str) -> Route:
    """Return the route NAME, or the route through a relay for `NAME+relay`. Raise ConfigError for an unknown name."""
    plain, plus, relay = name.partition("+")
    if plain not in ROUTES or (plus and relay != "relay"):
        raise ConfigError(
            f"unknown route {name!r}.", f"Use one of {', '.join(ROUTES)}, or NAME+relay.", "--set regions"
        )
    direct = ROUTES[plain]
    if not plus:
        return direct
    low, high = direct.rtt_low_ms + RELAY_MS[0], direct.rtt_high_ms + RELAY_MS[1]
    return Route(
        name,
        rtt_low_ms=low,
        rtt_high_ms=high,
        jitter_ms=direct.jitter_ms,
        loss=direct.loss,
        source=f"{direct.source}; relay +20-100 ms",
    )


def lossier(direct: Route, loss: float) -> Route:
    """Return the route with a further share of lost messages, 0 to 1."""
    return replace(direct, loss=min(1.0, direct.loss + loss))


def weighted(region: str) -> tuple[str, float]:
    """Parse `NAME` or `NAME=WEIGHT`. Return (name of the route, weight), with 1 as the default weight.

    Raises:
        ConfigError: The route is unknown, or the weight is not a positive number.
    """
    name, equals, weight_text = region.partition("=")
    try:
        weight = float(weight_text) if equals else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise ConfigError(
            f"the weight in {region!r} is not a positive number.",
            "Write NAME=WEIGHT, for example us-europe=2.",
            "--set regions",
        )
    return route(name).name, weight


class NetworkPath:
    """The network of one call: a constant delay, and a random extra delay for each message.

    Attributes:
        rtt_s: Round-trip time of this call in seconds, without jitter and loss.
        up_s: One-way delay from the caller to the server in seconds.
        down_s: One-way delay from the server to the caller in seconds.
    """

    def __init__(self, route: Route, draw: random.Random) -> None:
        self.rtt_s = draw.uniform(route.rtt_low_ms, route.rtt_high_ms) / 1000
        self.up_s = self.down_s = self.rtt_s / 2
        self._jitter_s = route.jitter_ms / 1000
        self._loss = route.loss
        self._draw = draw

    @property
    def steady(self) -> bool:
        """True if the path has neither jitter nor loss."""
        return not (self._jitter_s or self._loss)

    def late_s(self) -> float:
        """Draw the extra delay of one message in seconds, from jitter and loss.

        The delay by blocked earlier messages is not included.
        """
        if self.steady:
            return 0.0
        late = self._draw.expovariate(1 / self._jitter_s) if self._jitter_s else 0.0
        return late + (self.rtt_s + FAST_RETRANSMIT_S if self._draw.random() < self._loss else 0.0)


class Uplink:
    """The caller's upstream direction of a call. It delays messages by jitter and loss, but keeps their order."""

    def __init__(self, path: NetworkPath) -> None:
        self._path = path
        self._held: deque[tuple[float, bytes]] = deque()
        self._leaves_at = 0.0

    def leaving(self, message: bytes | None, due: float) -> Sequence[bytes]:
        """Hold `message` back by its random delay, and return the held messages to send at the deadline `due`.

        Args:
            message: The message recorded for this deadline, or None if the caller is muted.
            due: The deadline in seconds of the monotonic clock.
        """
        if self._path.steady:
            return (message,) if message else ()
        if message:
            self._leaves_at = max(self._leaves_at, due + self._path.late_s())
            self._held.append((self._leaves_at, message))
        messages: list[bytes] = []
        # Send each message at the 20 ms deadline nearest to the end of its delay. If it waited for the next deadline
        # after its delay, even 1 ms of jitter would cost 20 ms.
        while self._held and self._held[0][0] < due + FRAME_MS / 2000:
            messages.append(self._held.popleft()[1])
        return messages
