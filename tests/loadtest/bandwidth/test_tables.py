"""Tests of the guide's bandwidth tables: each table row is compared with measured or computed rates.

If a session needs more than the row's published rate, a configuration that stays within that rate is offered instead.
"""

from __future__ import annotations

import pytest

from loadtest.bandwidth.formula import NetworkLoad
from loadtest.bandwidth.opus import OpusSettings
from loadtest.bandwidth.rows import DirectionRow, SessionKind
from loadtest.bandwidth.tables import (
    QUALITIES,
    SERVERS,
    PublishedQuality,
    PublishedServer,
    RowVerdict,
    fitting,
    forwarded_rows,
    judge,
    projections,
    quality_rows,
    server_rows,
)

ROW = PublishedServer(10, 2, 5)


def session(
    name: str, up_kbps: float, down_kbps: float = 0.0, transport: str = "WebSocket", *, acks: float = 0
) -> SessionKind:
    """Return the kind of session `name`, measured over ten seconds, with 50 packets per second per direction.

    `up_kbps` and `down_kbps` are the rates from and to the caller; a `down_kbps` of 0 means the same as `up_kbps`.
    `transport` is the name of its transport. `acks` is the number of acknowledgements per second per direction.
    """
    rows = []
    for direction, rate in (("up", up_kbps), ("down", down_kbps or up_kbps)):
        load = NetworkLoad(rate * 1000 / 8 * 10, 500)
        rows += [
            DirectionRow(
                direction,  # type: ignore[arg-type]  # "up" or "down", from the loop
                state=state,
                seconds=10,
                payload_bytes=0,
                measured=load,
                formula=load,
                acknowledgements=NetworkLoad(acks * 52 * 10, acks * 10),
            )
            for state in ("talking", "conversation")
        ]
    return SessionKind(transport, name, tuple(rows))


@pytest.mark.parametrize(
    ("mbps", "verdict"),
    [
        (1.9, RowVerdict.HOLDS),
        (2.05, RowVerdict.HOLDS),
        (2.07, RowVerdict.WITHIN_RECOMMENDED),
        (5.14, RowVerdict.WITHIN_RECOMMENDED),
        (5.16, RowVerdict.EXCEEDED),
    ],
)
def test_a_row_is_judged_to_three_percent(mbps: float, verdict: RowVerdict) -> None:
    """A measured rate up to the minimum of a row of the guide's server table, plus 3%, gets the verdict HOLDS.

    Up to the recommended rate plus 3% it gets WITHIN_RECOMMENDED, and above that EXCEEDED.
    """
    assert judge(mbps, ROW) is verdict


def test_projection_is_per_session_bytes_times_agents() -> None:
    """The projected rate of 1,000 agents is 1,000 times one session's rate.

    Both directions and acknowledgements count. The Ethernet rate adds 38 bytes per packet.
    """
    rows = server_rows([session("s", 100, 50, acks=5)], {})
    assert [row.server for row in rows] == list(SERVERS)
    thousand = rows[2]
    acks_kbps = 2 * 5 * 52 * 8 / 1000
    assert thousand.projected_mbps == pytest.approx(150 + acks_kbps)
    assert thousand.projected_kpps == pytest.approx(2 * 55)
    assert thousand.ethernet_mbps == pytest.approx(150 + acks_kbps + 2 * 55 * 38 * 8 / 1000)
    assert thousand.measured_mbps is None


def test_only_the_row_that_was_run_is_called_measured() -> None:
    """A row of the server table has a `measured_mbps` only if that number of agents was measured at the same time.

    Otherwise `measured_mbps` is None.
    """
    rows = server_rows([session("s", 100)], {(10, "s"): 2.1})
    assert [row.measured_mbps for row in rows] == [2.1, None, None, None]


def test_a_failed_row_names_a_session_that_fits() -> None:
    """If a kind of session exceeds the rate of a row, `instead` names the kind with the highest rate that is within it.

    A kind with the same transport is preferred. If no kind is within the rate, `instead` says this.
    """
    fat, fits, thin = session("fat", 400), session("fits", 200), session("thin", 50)
    rtp = session("rtp", 240, transport="SRTP over UDP")
    assert server_rows([fat, fits, thin, rtp], {})[0].instead.startswith("fits: 400 kbps")
    assert server_rows([fat, rtp], {})[0].instead.startswith("rtp: 480 kbps")
    assert server_rows([fat], {})[0].instead == "none of the measured sessions"
    assert server_rows([thin], {})[0].instead == ""


@pytest.mark.parametrize("quality", QUALITIES, ids=lambda quality: quality.name)
def test_the_offered_settings_fit_the_guides_row(quality: PublishedQuality) -> None:
    """Opus settings offered for a row of the audio quality table have a codec rate in the row's range.

    With headers, their rate is at most the row's upper rate.
    """
    offered = fitting(quality)
    assert float(offered.rsplit(": ", 1)[1].split()[0]) <= quality.high_kbps
    assert quality.low_kbps <= float(offered.split("k")[0].removeprefix("Opus ")) <= quality.high_kbps


def test_a_row_that_nothing_fits_says_why() -> None:
    """If packet headers alone exceed a row's upper rate, `fitting` returns this reason instead of settings."""
    assert "headers alone" in fitting(PublishedQuality("Morse", 2, 3))


def test_quality_rows_are_judged_by_what_is_on_the_wire() -> None:
    """Rows of the audio quality table are compared with the rate of packets with headers, not the codec's rate.

    A row gets EXCEEDED if that rate is above the row's upper rate, and HOLDS if not.
    """
    fat = [
        session(OpusSettings(rate, channels=quality.channels).name, rate + 20)
        for quality in QUALITIES
        for rate in (quality.low_kbps, quality.high_kbps)
    ]
    rows = quality_rows(fat)
    assert [row.verdict for row in rows] == [RowVerdict.EXCEEDED] * 4
    assert rows[0].measured_kbps == pytest.approx((28, 32))
    assert rows[0].coded_kbps == pytest.approx((8, 12))
    thin = [session(one.name, one.row("down", "talking").kbps - 20) for one in fat]
    assert [(row.verdict, row.instead) for row in quality_rows(thin)] == [(RowVerdict.HOLDS, "")] * 4


def test_the_guides_minimum_is_opus_through_a_forwarding_unit() -> None:
    """1,000 agents with four forwarded Opus streams (legs) each need 195 Mbps at 24 kbps and 227 at 32 kbps.

    The first is within the guide's minimum for 1,000 agents, the second only within the recommended rate.
    """
    rows = {row.session: row for row in forwarded_rows(projections()) if row.server.agents == 1000}
    low = rows["Opus 24k constant, 20 ms, extensions, 4 legs"]
    high = rows["Opus 32k constant, 20 ms, extensions, 4 legs"]
    assert [low.projected_mbps, high.projected_mbps] == pytest.approx([195.2, 227.2])
    assert [low.verdict, high.verdict] == [RowVerdict.HOLDS, RowVerdict.WITHIN_RECOMMENDED]
    assert low.by_formula
    assert low.projected_kpps == pytest.approx(200)
