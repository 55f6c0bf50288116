"""Network routes between a caller and the edge, and the delays they cause."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from statistics import mean

import pytest

from loadtest.scenario.network import FAST_RETRANSMIT_S, RELAY_MS, ROUTES, NetworkPath, Route, Uplink, route, weighted

LOSSY = Route("lossy", 100, 100, jitter_ms=0.0, loss=0.3)


def test_the_routes_match_the_guide() -> None:
    """The routes whose source is the latency guide have the guide's lowest and highest round-trip times in ms."""
    bounds = {name: (row.rtt_low_ms, row.rtt_high_ms) for name, row in ROUTES.items() if "guide" in row.source}
    assert bounds == {
        "same-region": (10, 30),
        "us-east-west": (70, 110),
        "us-europe": (90, 180),
        "us-asia": (160, 280),
    }


@pytest.mark.parametrize("name", ROUTES)
def test_a_relay_adds_to_the_round_trip_only(name: str) -> None:
    """A relay adds 20 to 100 ms to the round trip of a route, but no jitter and no loss. Its name ends in "+relay"."""
    direct, relayed = route(name), route(f"{name}+relay")
    low, high = direct.rtt_low_ms + RELAY_MS[0], direct.rtt_high_ms + RELAY_MS[1]
    assert relayed == replace(direct, name=f"{name}+relay", rtt_low_ms=low, rtt_high_ms=high, source=relayed.source)


def test_a_region_may_have_a_weight() -> None:
    """`weighted` returns a route's name and its weight, the number after "=". The default weight is 1."""
    assert weighted("us-asia+relay=2.5") == ("us-asia+relay", 2.5)
    assert weighted("local") == ("local", 1.0)


@pytest.mark.parametrize("name", ROUTES)
def test_a_call_s_round_trip_lies_within_the_bounds_of_its_route(name: str) -> None:
    """Each call draws its round-trip time between the bounds. Half of it applies to each direction."""
    bounds = ROUTES[name]
    for seed in range(50):
        path = NetworkPath(bounds, Random(seed))
        assert bounds.rtt_low_ms <= path.rtt_s * 1000 <= bounds.rtt_high_ms
        assert path.up_s + path.down_s == pytest.approx(path.rtt_s)


def test_a_steady_route_is_never_late() -> None:
    """A message on the route `local`, which has no jitter and no loss, is never late."""
    path = NetworkPath(ROUTES["local"], Random(1))
    assert path.steady
    assert {path.late_s() for _ in range(100)} == {0.0}


def test_jitter_and_loss_match_the_route() -> None:
    """The mean extra delay from jitter is that of the route, within 5%.

    On a route that loses 30% of the messages, 30% are late by the time of one retransmission, and the others not at
    all.
    """
    jittery = NetworkPath(ROUTES["us-europe"], Random(2))
    jittery._loss = 0.0
    assert mean(jittery.late_s() for _ in range(20_000)) == pytest.approx(0.002, rel=0.05)
    lossy = NetworkPath(LOSSY, Random(3))
    delays = [lossy.late_s() for _ in range(20_000)]
    assert set(delays) == {0.0, 0.1 + FAST_RETRANSMIT_S}
    assert mean(value > 0 for value in delays) == pytest.approx(0.3, rel=0.05)


def test_a_lost_message_blocks_later_messages() -> None:
    """Messages behind a lost one wait for its retransmission and are then sent with it, in order and never early."""
    uplink = Uplink(NetworkPath(LOSSY, Random(4)))
    spoken = [str(number).encode() for number in range(200)]
    sent: list[tuple[float, bytes]] = []
    for number, message in enumerate([*spoken, *[None] * 20]):
        due = number * 0.02
        sent += [(due, message) for message in uplink.leaving(message, due)]
    assert [message for _, message in sent] == spoken
    delays = [at - number * 0.02 for number, (at, _) in enumerate(sent)]
    assert min(delays) == pytest.approx(0)
    # 0.1 s round trip, after three frames of 20 ms in which TCP notices the loss
    assert max(delays) == pytest.approx(0.16)
    sent_at = [at for at, _ in sent]
    assert max(sent_at.count(at) for at in sent_at) == 9


def test_a_steady_route_holds_nothing_back() -> None:
    """On a route without jitter and loss, a message is sent at its own deadline. Without a message nothing is sent."""
    uplink = Uplink(NetworkPath(ROUTES["local"], Random(1)))
    assert uplink.leaving(b"frame", 1.0) == (b"frame",)
    assert uplink.leaving(None, 1.02) == ()
