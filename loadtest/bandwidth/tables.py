"""The latency guide's bandwidth tables (section 4.4), row by row against what was measured.

The guide's quality rows are rates of a codec, printed as the bandwidth of an agent; its server rows are one
multiplication, 200 and 500 kbps for each agent. Both are held against whole IP packets. A row that does not hold gets
the configuration in which it would, or the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from loadtest.bandwidth.formula import ETHERNET, NetworkLoad, Rtp, Srtp, kbps
from loadtest.bandwidth.opus import FRAME_MS, OpusSettings
from loadtest.bandwidth.rows import TOLERANCE, SessionKind


class RowVerdict(Enum):
    """What becomes of a row."""

    HOLDS = "holds"
    WITHIN_RECOMMENDED = "exceeds the minimum, within the recommended"
    EXCEEDED = "does not hold"


@dataclass(frozen=True, slots=True)
class PublishedQuality:
    """A per-agent row: so many kbps, and over how many channels it is asked for."""

    name: str
    low_kbps: float
    high_kbps: float
    channels: int = 1


@dataclass(frozen=True, slots=True)
class PublishedServer:
    """A row of the server table, in Mbps."""

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
# A silent libopus sends a frame so often, to refresh the background noise.
REFRESH_S = 0.4

SERVERS = (
    PublishedServer(10, 2, 5),
    PublishedServer(100, 20, 50),
    PublishedServer(1000, 200, 500),
    PublishedServer(10_000, 2000, 5000),
)


@dataclass(frozen=True, slots=True)
class QualityRow:
    """One direction while somebody speaks. `measured_kbps`: at both ends of the row's range, whole IP packets;
    `coded_kbps`: the codec's share of them. `instead`: where the row would hold.
    """

    quality: PublishedQuality
    coded_kbps: tuple[float, float]
    measured_kbps: tuple[float, float]
    verdict: RowVerdict
    instead: str


@dataclass(frozen=True, slots=True)
class ServerRow:
    """So many agents over one transport, both directions at our edge. `measured_mbps` where so many were run at once;
    everything else is projected from one session's measured bytes, or `by_formula` from none.
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
    """The per-agent table, from Opus as measured in frames of 20 ms without DTX."""
    return [_quality_row(quality, sessions) for quality in QUALITIES]


def _quality_row(quality: PublishedQuality, sessions: Sequence[SessionKind]) -> QualityRow:
    ends = (quality.low_kbps, quality.high_kbps)
    rows = [_find(OpusSettings(rate, channels=quality.channels).name, sessions).row("down", "talking") for rate in ends]
    # RTP and SRTP are counted with the payload of UDP: the codec's share is what is left without them.
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
    """The least change that brings a direction, headers included, within the row's upper rate, by formula: shorter
    frames before longer ones, an open stream before DTX, the highest rate of the row that fits.
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
    """The server table for each session; `measured_mbps` by agents and session where that many ran at once."""
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
    """The server table where a forwarding unit carries four legs of each conversation, by formula."""
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
    """What so many agents take against the row."""
    if mbps <= server.minimum * (1 + TOLERANCE):
        return RowVerdict.HOLDS
    return RowVerdict.WITHIN_RECOMMENDED if mbps <= server.recommended * (1 + TOLERANCE) else RowVerdict.EXCEEDED


def _instead(server: PublishedServer, transport: str, sessions: Sequence[SessionKind]) -> str:
    """The richest session that fits: on the same transport where one does."""
    per_agent = server.recommended * 1000 / server.agents
    fits = [session for session in sessions if session.kbps <= per_agent]
    if not fits:
        return "none of those measured"
    same = [session for session in fits if session.transport == transport]
    best = max(same or fits, key=lambda session: session.kbps)
    return f"{best.name}: {best.kbps:.0f} kbps a session"


@dataclass(frozen=True, slots=True)
class Projection:
    """A configuration that was not measured, by formula only: one direction, and two and four legs of it."""

    name: str
    packet_bytes: float
    kbps: float
    pps: float

    @property
    def two_ways_kbps(self) -> float:
        return 2 * self.kbps

    @property
    def four_legs_kbps(self) -> float:
        """Caller and agent each through a forwarding unit: what the unit carries."""
        return 4 * self.kbps


def projections() -> list[Projection]:
    """Rows that this machine cannot or need not measure, each labelled with what differs."""
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
