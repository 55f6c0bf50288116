"""The latency guide's bandwidth tables (section 4.4), compared row by row with the measurements.

The guide's quality rows are codec rates, printed as the bandwidth of an agent. Its server rows are multiplications:
200 and 500 kbps per agent. Both are compared with the rates of whole IP packets. A row that does not hold names a
configuration in which it would, or the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from loadtest.bandwidth.formula import ETHERNET, NetworkLoad, Rtp, Srtp, kbps
from loadtest.bandwidth.opus import FRAME_MS, OpusSettings
from loadtest.bandwidth.rows import TOLERANCE, SessionKind


class RowVerdict(Enum):
    """Result of comparing a row of the guide with the measurement."""

    HOLDS = "holds"
    WITHIN_RECOMMENDED = "exceeds the minimum, within the recommended"
    EXCEEDED = "does not hold"


@dataclass(frozen=True, slots=True)
class PublishedQuality:
    """A per-agent row of the guide: a range of rates and the number of audio channels."""

    name: str
    low_kbps: float
    high_kbps: float
    channels: int = 1


@dataclass(frozen=True, slots=True)
class PublishedServer:
    """A row of the guide's server table: number of agents, minimum and recommended Mbps."""

    agents: int
    minimum: float
    recommended: float


QUALITIES = (
    PublishedQuality("Narrowband", 8, 12),
    PublishedQuality("Wideband", 16, 24),
    PublishedQuality("Fullband", 32, 48),
    PublishedQuality("Stereo", 64, 128, channels=2),
)
TALK_SHARE = 0.5
# Interval at which libopus with DTX sends a frame during silence, to refresh the background noise.
REFRESH_S = 0.4

SERVERS = (
    PublishedServer(10, 2, 5),
    PublishedServer(100, 20, 50),
    PublishedServer(1000, 200, 500),
    PublishedServer(10_000, 2000, 5000),
)


@dataclass(frozen=True, slots=True)
class QualityRow:
    """Verdict on a per-agent row, for one direction while somebody speaks.

    Attributes:
        quality: The guide's row.
        coded_kbps: The codec's own rate at both ends of the row's range.
        measured_kbps: The rate of whole IP packets at both ends of the row's range.
        verdict: Whether the upper end holds.
        instead: Configuration in which the row would hold. Empty if it holds.
    """

    quality: PublishedQuality
    coded_kbps: tuple[float, float]
    measured_kbps: tuple[float, float]
    verdict: RowVerdict
    instead: str


@dataclass(frozen=True, slots=True)
class ServerRow:
    """Verdict on a server row for one kind of session: both directions at our edge, acknowledgements included.

    Attributes:
        server: The guide's row.
        session: Name of the session kind.
        projected_mbps: One session's rate times the number of agents.
        projected_kpps: Thousands of packets per second, computed in the same way.
        ethernet_mbps: `projected_mbps` plus the Ethernet overhead of every packet.
        verdict: Whether the projection fits the row.
        instead: The session with the highest rate that fits the row. Empty unless the verdict is EXCEEDED.
        measured_mbps: Measured with this many calls at the same time. None if that was not run.
        by_formula: The session's rate is computed, not measured.
    """

    server: PublishedServer
    session: str
    projected_mbps: float
    projected_kpps: float
    ethernet_mbps: float
    verdict: RowVerdict
    instead: str
    measured_mbps: float | None = None
    by_formula: bool = False


def quality_rows(sessions: Sequence[SessionKind]) -> list[QualityRow]:
    """Compute the per-agent table from the measured Opus streams with 20 ms frames and without DTX."""
    return [_quality_row(quality, sessions) for quality in QUALITIES]


def _quality_row(quality: PublishedQuality, sessions: Sequence[SessionKind]) -> QualityRow:
    ends = (quality.low_kbps, quality.high_kbps)
    rows = [_find(OpusSettings(rate, channels=quality.channels).name, sessions).row("down", "talking") for rate in ends]
    # The UDP payload contains the RTP and SRTP headers. Subtract all headers to get the codec's own rate.
    rtp = Rtp()
    coded = [kbps(row.measured.ip_bytes - row.measured.packets * rtp.overhead, row.seconds) for row in rows]
    holds = rows[1].kbps <= quality.high_kbps * (1 + TOLERANCE)
    verdict = RowVerdict.HOLDS if holds else RowVerdict.EXCEEDED
    instead = "" if holds else fitting(quality)
    return QualityRow(
        quality,
        coded_kbps=(coded[0], coded[1]),
        measured_kbps=(rows[0].kbps, rows[1].kbps),
        verdict=verdict,
        instead=instead,
    )


def fitting(quality: PublishedQuality) -> str:
    """Return the smallest change that keeps a direction, headers included, within the row's upper rate.

    The rates are computed by formula. Streams without DTX are tried before DTX, short frames before long ones, and
    high rates before low ones. The result is text for a table cell.
    """
    for dtx in (False, True):
        for frame_ms in FRAME_MS:
            for rate in range(int(quality.high_kbps), int(quality.low_kbps) - 1, -1):
                used = _average_kbps(rate, frame_ms, dtx=dtx)
                if used <= quality.high_kbps:
                    name = OpusSettings(rate, frame_ms, quality.channels, dtx).name
                    talk = f" while {TALK_SHARE:.0%} of the time is speech" if dtx else ""
                    return f"{name}{talk}: {used:.1f} kbps by formula"
    headers = Rtp().constant(0, FRAME_MS[-1])
    return f"none over RTP: headers alone take {kbps(headers.ip_bytes, 1):.1f} kbps"


def _average_kbps(rate: float, frame_ms: int, *, dtx: bool) -> float:
    spoken = Rtp().constant(rate, frame_ms)
    if not dtx:
        return kbps(spoken.ip_bytes, 1)
    refresh = Rtp().packet(rate * frame_ms / 8) * (1 / REFRESH_S)
    return kbps(spoken.ip_bytes * TALK_SHARE + refresh.ip_bytes * (1 - TALK_SHARE), 1)


def server_rows(sessions: Sequence[SessionKind], measured_mbps: dict[tuple[int, str], float]) -> list[ServerRow]:
    """Compute the server table for every session kind.

    Args:
        sessions: Measured session kinds.
        measured_mbps: Rate with many calls at the same time, by number of agents and session name.
    """
    return [
        _server_row(server, session, sessions, measured_mbps.get((server.agents, session.name)))
        for session in sessions
        for server in SERVERS
    ]


def _server_row(
    server: PublishedServer, session: SessionKind, sessions: Sequence[SessionKind], measured: float | None
) -> ServerRow:
    one = session.both_ways("conversation")
    mbps = kbps(one.ip_bytes, 1) * server.agents / 1000
    verdict = judge(mbps, server)
    instead = "" if verdict is not RowVerdict.EXCEEDED else _instead(server, session.transport, sessions)
    ethernet = kbps(one.ethernet_bytes, 1) * server.agents / 1000
    return ServerRow(
        server,
        session=session.name,
        projected_mbps=mbps,
        projected_kpps=one.packets * server.agents / 1000,
        ethernet_mbps=ethernet,
        verdict=verdict,
        instead=instead,
        measured_mbps=measured,
    )


def forwarded_rows(projected: Sequence[Projection]) -> list[ServerRow]:
    """Compute the server table, by formula, for a forwarding unit that carries four legs of each conversation."""
    rows = []
    for row in projected:
        for server in SERVERS:
            mbps = row.four_legs_kbps * server.agents / 1000
            ethernet = mbps + 4 * row.pps * ETHERNET * 8 / 1e6 * server.agents
            name, kpps = f"{row.name}, 4 legs", 4 * row.pps * server.agents / 1000
            instead = (
                "" if (verdict := judge(mbps, server)) is not RowVerdict.EXCEEDED else "direct to our edge: 2 legs"
            )
            rows.append(
                ServerRow(
                    server,
                    session=name,
                    projected_mbps=mbps,
                    projected_kpps=kpps,
                    ethernet_mbps=ethernet,
                    verdict=verdict,
                    instead=instead,
                    by_formula=True,
                )
            )
    return rows


def judge(mbps: float, server: PublishedServer) -> RowVerdict:
    """Compare a projected rate with a row's minimum and recommended rates, within `TOLERANCE`."""
    if mbps <= server.minimum * (1 + TOLERANCE):
        return RowVerdict.HOLDS
    return RowVerdict.WITHIN_RECOMMENDED if mbps <= server.recommended * (1 + TOLERANCE) else RowVerdict.EXCEEDED


def _instead(server: PublishedServer, transport: str, sessions: Sequence[SessionKind]) -> str:
    """Describe the session with the highest rate that fits the row. Sessions on the same transport come first."""
    per_agent = server.recommended * 1000 / server.agents
    fits = [session for session in sessions if session.kbps <= per_agent]
    if not fits:
        return "none of the measured sessions"
    same = [session for session in fits if session.transport == transport]
    best = max(same or fits, key=lambda session: session.kbps)
    return f"{best.name}: {best.kbps:.0f} kbps a session"


@dataclass(frozen=True, slots=True)
class Projection:
    """A configuration that is computed by formula and not measured. The fields describe one direction."""

    name: str
    packet_bytes: float
    kbps: float
    pps: float

    @property
    def two_ways_kbps(self) -> float:
        """Rate of both directions."""
        return 2 * self.kbps

    @property
    def four_legs_kbps(self) -> float:
        """Rate of a forwarding unit between caller and agent: two directions on each side."""
        return 4 * self.kbps


def projections() -> list[Projection]:
    """Compute configurations that this machine does not measure: header extensions, AES-GCM, IPv6 and TURN."""
    paths = (
        ("extensions", Rtp(extensions=12)),
        ("extensions, AES-GCM", Rtp(Srtp.AEAD_AES_128_GCM, extensions=12)),
        ("extensions, IPv6", Rtp(extensions=12, ip=40)),
        ("extensions, TURN ChannelData", Rtp(extensions=12, turn=True)),
    )
    return [
        _projection(f"Opus {rate}k constant, 20 ms, {name}", path.packet(rate * 20 / 8), 20)
        for rate in (24, 32)
        for name, path in paths
    ]


def _projection(name: str, packet: NetworkLoad, frame_ms: float) -> Projection:
    return Projection(name, packet.ip_bytes, kbps(packet.ip_bytes, frame_ms / 1000), 1000 / frame_ms)


def _find(name: str, sessions: Sequence[SessionKind]) -> SessionKind:
    return next(session for session in sessions if session.name == name)
