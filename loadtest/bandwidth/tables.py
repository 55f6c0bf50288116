"""The latency guide's bandwidth tables (section 4.4), compared row by row with the measurements.

The guide's quality rows are codec rates without headers, printed as the bandwidth of an agent. Its server rows multiply
the number of agents by 200 kbps (minimum) and 500 kbps (recommended). Both are compared with the rates of IP packets
with headers. If a rate exceeds its row, the result names a configuration that stays within the row, or says that none
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from loadtest.bandwidth.formula import ETHERNET, NetworkLoad, Rtp, Srtp, kbps
from loadtest.bandwidth.opus import FRAME_MS, OpusSettings
from loadtest.bandwidth.rows import TOLERANCE, SessionKind


class RowVerdict(Enum):
    """Result of comparing a row of the guide with a measured or computed rate.

    Attributes:
        HOLDS: The rate is within the minimum of a server row, or within the upper rate of a per-agent row.
        WITHIN_RECOMMENDED: The rate exceeds the minimum of a server row but not its recommended rate.
        EXCEEDED: The rate exceeds the recommended rate of a server row, or the upper rate of a per-agent row.
    """

    HOLDS = "holds"
    WITHIN_RECOMMENDED = "exceeds the minimum, within the recommended"
    EXCEEDED = "does not hold"


@dataclass(frozen=True, slots=True)
class PublishedQuality:
    """A per-agent row of the guide: a range of codec rates in kilobits per second, and the number of audio channels."""

    name: str
    low_kbps: float
    high_kbps: float
    channels: int = 1


@dataclass(frozen=True, slots=True)
class PublishedServer:
    """A row of the guide's server table: number of agents, minimum and recommended rate in megabits per second."""

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
# Interval in seconds at which libopus with DTX sends a frame during silence, to refresh the background noise.
REFRESH_S = 0.4

SERVERS = (
    PublishedServer(10, 2, 5),
    PublishedServer(100, 20, 50),
    PublishedServer(1000, 200, 500),
    PublishedServer(10_000, 2000, 5000),
)


@dataclass(frozen=True, slots=True)
class QualityRow:
    """Comparison of a per-agent row of the guide with measurements of one direction while it carries speech.

    Attributes:
        quality: The guide's row.
        coded_kbps: Measured rates without headers at the (lower, upper) end of the row's range, in kilobits per second.
        measured_kbps: Measured rates of IP packets with headers at the (lower, upper) end of the row's range, in
            kilobits per second.
        verdict: HOLDS if the measured rate at the upper end is within the row's upper rate, else EXCEEDED.
        instead: If the row is exceeded, settings that stay within it, as text. Else empty.
    """

    quality: PublishedQuality
    coded_kbps: tuple[float, float]
    measured_kbps: tuple[float, float]
    verdict: RowVerdict
    instead: str


@dataclass(frozen=True, slots=True)
class ServerRow:
    """Comparison of a row of the latency guide's server table with one kind of session.

    Rates are the sum of both directions between the callers and the server, with acknowledgements.

    Attributes:
        server: The guide's row.
        session: Name of the session kind.
        projected_mbps: Measured rate of one session times the number of agents, in megabits per second.
        projected_kpps: Packets of one session times the number of agents, in thousands of packets per second.
        ethernet_mbps: `projected_mbps` plus the Ethernet overhead of every packet, in megabits per second.
        verdict: Comparison of `projected_mbps` with the row's minimum and recommended rate.
        instead: The kind of session with the highest rate that stays within the row. Empty unless the verdict is
            EXCEEDED.
        measured_mbps: Rate in megabits per second, measured with the row's number of calls at the same time. None
            without that measurement.
        by_formula: True if the session's rate is computed and not measured.
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
    """Compare the guide's per-agent rows with the measured Opus streams. Return one row for each, in the guide's order.

    The streams have 20 ms frames and no DTX.
    """
    return [_quality_row(quality, sessions) for quality in QUALITIES]


def _quality_row(quality: PublishedQuality, sessions: Sequence[SessionKind]) -> QualityRow:
    ends = (quality.low_kbps, quality.high_kbps)
    rows = [_find(OpusSettings(rate, channels=quality.channels).name, sessions).row("down", "talking") for rate in ends]
    # The measured IP bytes include the IP, UDP, RTP and SRTP headers. Subtract them to get the rate of the codec alone.
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
    """Return, as text, Opus settings whose rate stays within the upper rate of a per-agent row.

    The rate is that of one direction, with headers, by formula. Streams without DTX are tried before DTX, short frames
    before long ones, and high bit rates before low ones. If no setting fits, the text gives the rate of the headers
    alone.
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
    """Compare the guide's server rows with every kind of session. Return one row for each combination.

    Args:
        sessions: Measured kinds of session.
        measured_mbps: Measured rate of many calls at the same time in megabits per second, by (number of agents, name
            of the kind of session).
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
    """Compare the guide's server rows with a media server that forwards audio between caller and agent, by formula.

    Return one row for each configuration in `projected` and each server row. The media server carries four streams for
    each conversation: two directions to the caller and two to the agent.
    """
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
    """Return the verdict on a rate of `mbps` megabits per second for a server row.

    The rate may exceed the minimum or recommended rate of the row by the share `TOLERANCE`.
    """
    if mbps <= server.minimum * (1 + TOLERANCE):
        return RowVerdict.HOLDS
    return RowVerdict.WITHIN_RECOMMENDED if mbps <= server.recommended * (1 + TOLERANCE) else RowVerdict.EXCEEDED


def _instead(server: PublishedServer, transport: str, sessions: Sequence[SessionKind]) -> str:
    """Return, as text, the kind of session with the highest rate within the recommended rate per agent of a server row.

    Sessions on `transport` are preferred. If no session is within the rate, the text says so.
    """
    per_agent = server.recommended * 1000 / server.agents
    fits = [session for session in sessions if session.kbps <= per_agent]
    if not fits:
        return "none of the measured sessions"
    same = [session for session in fits if session.transport == transport]
    best = max(same or fits, key=lambda session: session.kbps)
    return f"{best.name}: {best.kbps:.0f} kbps a session"


@dataclass(frozen=True, slots=True)
class Projection:
    """A configuration that is computed by formula and not measured.

    Attributes:
        name: Label in tables.
        packet_bytes: Size of one IP packet in bytes.
        kbps: Rate of one direction in kilobits per second.
        pps: Packets per second of one direction.
    """

    name: str
    packet_bytes: float
    kbps: float
    pps: float

    @property
    def two_ways_kbps(self) -> float:
        """Rate of both directions in kilobits per second."""
        return 2 * self.kbps

    @property
    def four_legs_kbps(self) -> float:
        """Rate of one conversation at a media server between caller and agent, in kilobits per second.

        The server carries four streams: two directions to the caller and two to the agent.
        """
        return 4 * self.kbps


def projections() -> list[Projection]:
    """Return the rates, by formula, of configurations that are not measured.

    They are Opus streams of 24 and 32 kbps with header extensions, alone and with AES-GCM, IPv6 or TURN.
    """
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
