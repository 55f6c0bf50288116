"""Tables and JSON of `rejoinder load bandwidth`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from loadtest.bandwidth import opus
from loadtest.bandwidth.rows import TOLERANCE, Direction, DirectionRow, SessionKind
from loadtest.bandwidth.run import BandwidthReport
from loadtest.bandwidth.tables import SERVERS, ServerRow

WAYS: tuple[Direction, Direction] = ("up", "down")

# Names of the RTP sessions that the server table contains. The JSON document contains all that were measured.
_SHOWN = (
    "Opus 24k, 20 ms",
    "Opus 32k, 20 ms",
    "Opus 32k, 20 ms, DTX",
    "Opus 128k, 20 ms, stereo",
    "G.711 mu-law, 20 ms",
)


def tables(report: BandwidthReport) -> list[Table]:
    """Return the six tables to print, in order, with the borders of Markdown tables.

    Two compare measured bandwidth with its formula (WebSocket, SRTP), one has calls over WebRTC, two check the latency
    guide's tables (per agent, per server), and one contains bandwidths by formula only.
    """
    sockets = [session for session in report.sessions if session.transport.startswith("WebSocket")]
    media = [session for session in report.sessions if session not in sockets]
    return [
        _sessions("WebSocket: measured against formula", sockets),
        _sessions("SRTP over UDP: measured against formula", media),
        _webrtc(report),
        _qualities(report),
        _servers(report),
        _projected(report),
    ]


def document(report: BandwidthReport) -> dict[str, Any]:
    """Return the object that `--json` writes; docs/results/bandwidth.md explains its keys.

    It contains the verdict (ok), its tolerance, every measured session with its rows and totals, and the three tables
    that correspond to the latency guide.
    """
    return {
        "ok": report.ok,
        "tolerance": TOLERANCE,
        "libopus": opus.version(),
        "sessions": [_session(session) for session in report.sessions],
        "webrtc": [asdict(row) for row in report.webrtc],
        "qualities": [asdict(row) | {"verdict": row.verdict.value} for row in report.qualities],
        "servers": [asdict(row) | {"verdict": row.verdict.value} for row in report.servers],
        "projected": [
            asdict(row) | {"two_ways_kbps": row.two_ways_kbps, "four_legs_kbps": row.four_legs_kbps}
            for row in report.projected
        ],
    }


def _session(session: SessionKind) -> dict[str, Any]:
    whole = session.both_ways("conversation")
    return {
        "transport": session.transport,
        "name": session.name,
        "both_ways_kbps": session.kbps,
        "both_ways_pps": whole.packets,
        "both_ways_ethernet_kbps": whole.ethernet_bytes * 8 / 1000,
        "rows": [
            asdict(row)
            | {"kbps": row.kbps, "pps": row.pps, "bytes_error": row.bytes_error, "packets_error": row.packets_error}
            for row in session.rows
        ],
    }


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.MARKDOWN, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _sessions(title: str, sessions: Sequence[SessionKind]) -> Table:
    """Return a table with one row for each session: its rates at IP level in each direction, and by formula.

    Rates are in kbit/s, or packets per second (pps), during speech and over the call. They exclude acknowledgements,
    except in the column "both kbps". The last column is the largest relative error of the formula.
    """
    columns = ["session"]
    columns += [f"{way} {what}" for way in WAYS for what in ("talking kbps", "pps", "formula", "call kbps")]
    table = _table(title, *columns, "talk share up/down", "acks/s up/down", "both kbps", "worst error")
    for session in sessions:
        cells = [session.name]
        shares, acknowledged = [], []
        for way in WAYS:
            talking, call = session.row(way, "talking"), session.row(way, "conversation")
            formula = talking.formula.ip_bytes * 8 / 1000 / talking.seconds
            cells += [f"{talking.kbps:.1f}", f"{talking.pps:.1f}", f"{formula:.1f}", f"{call.kbps:.1f}"]
            shares.append(f"{talking.seconds / call.seconds:.0%}")
            acknowledged.append(f"{call.acknowledgements.packets / call.seconds:.0f}")
        cells += ["/".join(shares), "/".join(acknowledged), f"{session.kbps:.1f}", f"{_worst(session.rows):+.2%}"]
        table.add_row(*cells)
    return table


def _webrtc(report: BandwidthReport) -> Table:
    """Return a table with one row for each direction of the calls over WebRTC."""
    columns = ("call", "direction", "talking kbps", "pps", "call kbps", "call pps", "talk share")
    table = _table("WebRTC: measured, with events, reports and checks of the path", *columns)
    for row in report.webrtc:
        rates = (row.talking_kbps, row.talking_pps, row.call_kbps, row.call_pps)
        name = f"Opus 32k, 20 ms{', DTX' if row.dtx else ''}"
        table.add_row(name, row.direction, *(f"{rate:.1f}" for rate in rates), f"{row.talking_share:.0%}")
    return table


def _worst(rows: Sequence[DirectionRow]) -> float:
    return max((error for row in rows for error in (row.bytes_error, row.packets_error)), key=abs)


def _qualities(report: BandwidthReport) -> Table:
    table = _table(
        "The guide's per-agent table (4.4): one direction during speech",
        *("row", "guide kbps", "codec kbps", "on the wire kbps", "verdict", "would hold with"),
    )
    for row in report.qualities:
        quality = row.quality
        coded, wire = (f"{low:.1f}-{high:.1f}" for low, high in (row.coded_kbps, row.measured_kbps))
        guide = f"{quality.low_kbps:g}-{quality.high_kbps:g}"
        table.add_row(quality.name, guide, coded, wire, row.verdict.value, row.instead or "-")
    return table


def _servers(report: BandwidthReport) -> Table:
    table = _table(
        "The guide's server table (4.4): both directions at our edge, acknowledgements included",
        *("agents", "session", "guide Mbps", "measured", "projected", "kpps", "Ethernet", "verdict", "would hold with"),
    )
    for server in SERVERS:
        for row in (row for row in report.servers if row.server == server and _shown(row)):
            measured = "-" if row.measured_mbps is None else f"{row.measured_mbps:.2f}"
            guide = f"{server.minimum:g} / {server.recommended:g}"
            numbers = (f"{row.projected_mbps:.2f}", f"{row.projected_kpps:.2f}", f"{row.ethernet_mbps:.2f}")
            name = f"{row.session}{' (formula)' if row.by_formula else ''}"
            agents = str(server.agents)
            table.add_row(agents, name, guide, measured, *numbers, row.verdict.value, row.instead or "-")
    return table


def _shown(row: ServerRow) -> bool:
    socket = " up" in row.session
    return socket or row.session in _SHOWN or (row.by_formula and row.session.endswith("extensions, 4 legs"))


def _projected(report: BandwidthReport) -> Table:
    table = _table(
        "Projected by formula, not measured",
        *("configuration", "bytes a packet", "kbps a direction", "pps", "2 ways", "4 legs"),
    )
    for row in report.projected:
        rates = (row.kbps, row.pps, row.two_ways_kbps, row.four_legs_kbps)
        table.add_row(row.name, f"{row.packet_bytes:g}", *(f"{rate:.1f}" for rate in rates))
    return table
