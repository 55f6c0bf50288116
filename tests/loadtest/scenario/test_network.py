"""Routes of the network between a caller and the edge, and what they do to messages."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from statistics import mean

import pytest

from loadtest.scenario.network import FAST_RETRANSMIT_S, RELAY_MS, ROUTES, Path, Route, Uplink, route, weighted

LOSSY = Route("lossy", 100, 100, jitter_ms=0.0, loss=0.3)


def test_the_guide_s_routes_are_there() -> None:
    """Section 1.2: the same region, and three distances on top of it."""
    bounds = {name: (row.rtt_low_ms, row.rtt_high_ms) for name, row in ROUTES.items() if "guide" in row.source}
    assert bounds == {
        "same-region": (10, 30),
        "us-east-west": (70, 110),
        "us-europe": (90, 180),
        "us-asia": (160, 280),
    }


@pytest.mark.parametrize("name", ROUTES)
def test_a_relay_adds_to_the_round_trip_only(name: str) -> None:
    """20 to 100 ms more, the same jitter and loss, and a name of its own to be reported by."""
    plain, relayed = route(name), route(f"{name}+relay")
    low, high = plain.rtt_low_ms + RELAY_MS[0], plain.rtt_high_ms + RELAY_MS[1]
    assert relayed == replace(plain, name=f"{name}+relay", rtt_low_ms=low, rtt_high_ms=high, source=relayed.source)


def test_a_region_may_have_a_weight() -> None:
    """1 without one."""
    assert weighted("us-asia+relay=2.5") == ("us-asia+relay", 2.5)
    assert weighted("local") == ("local", 1.0)


@pytest.mark.parametrize("name", ROUTES)
def test_a_call_s_round_trip_lies_within_its_route_s(name: str) -> None:
    """Drawn for each call, half of it each way."""
    by = ROUTES[name]
    for seed in range(50):
        path = Path(by, Random(seed))
        assert by.rtt_low_ms <= path.rtt_s * 1000 <= by.rtt_high_ms
        assert path.up_s + path.down_s == pytest.approx(path.rtt_s)


def test_a_steady_route_is_never_late() -> None:
    """This machine itself."""
    path = Path(ROUTES["local"], Random(1))
    assert path.steady
    assert {path.late_s() for _ in range(100)} == {0.0}


def test_jitter_and_loss_are_what_the_route_says() -> None:
    """An exponential's mean, and a retransmission's round trip for the share that was lost."""
    jittery = Path(ROUTES["us-europe"], Random(2))
    jittery._loss = 0.0
    assert mean(jittery.late_s() for _ in range(20_000)) == pytest.approx(0.002, rel=0.05)
    lossy = Path(LOSSY, Random(3))
    late = [lossy.late_s() for _ in range(20_000)]
    assert set(late) == {0.0, 0.1 + FAST_RETRANSMIT_S}
    assert mean(value > 0 for value in late) == pytest.approx(0.3, rel=0.05)


def test_a_lost_message_holds_up_those_behind_it() -> None:
    """Head of line: all leave in their order, none early, and those behind a lost one together with it."""
    uplink = Uplink(Path(LOSSY, Random(4)))
    spoken = [str(number).encode() for number in range(200)]
    left: list[tuple[float, bytes]] = []
    for number, message in enumerate([*spoken, *[None] * 20]):
        due = number * 0.02
        left += [(due, gone) for gone in uplink.leaving(message, due)]
    assert [message for _, message in left] == spoken
    delays = [at - number * 0.02 for number, (at, _) in enumerate(left)]
    assert min(delays) == pytest.approx(0)
    assert max(delays) == pytest.approx(0.16)  # a round trip and three frames
    together = [at for at, _ in left]
    assert max(together.count(at) for at in together) == 9


def test_on_a_steady_route_nothing_is_held() -> None:
    """Each frame at its own deadline, and nothing where nothing was said."""
    uplink = Uplink(Path(ROUTES["local"], Random(1)))
    assert uplink.leaving(b"frame", 1.0) == (b"frame",)
    assert uplink.leaving(None, 1.02) == ()
