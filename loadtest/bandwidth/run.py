"""The whole measurement: calls, media streams, many agents at once, and the guide's tables out of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.bandwidth import media
from loadtest.bandwidth.caller import AudioPath
from loadtest.bandwidth.calls import LINES, Exchange, Watched, exchange
from loadtest.bandwidth.capture import capturing, traffic
from loadtest.bandwidth.formula import kbps
from loadtest.bandwidth.netns import Pair, pair
from loadtest.bandwidth.rows import SessionKind, call_session, stream_session
from loadtest.bandwidth.streams import streams
from loadtest.bandwidth.tables import (
    Projection,
    QualityRow,
    ServerRow,
    forwarded_rows,
    projections,
    quality_rows,
    server_rows,
)

Say = Callable[[str], None]

# The lines of which so many agents are also run at once.
CROWDS = tuple(line for line in LINES if line.message_ms == 20 and not line.tls)[:2]


@dataclass(frozen=True, slots=True)
class BandwidthReport:
    """Everything that was measured, and the tables."""

    sessions: tuple[SessionKind, ...]
    qualities: tuple[QualityRow, ...]
    servers: tuple[ServerRow, ...]
    projected: tuple[Projection, ...]
    strangers: int

    @property
    def ok(self) -> bool:
        """Whether every row agrees with its formula."""
        return all(row.ok for session in self.sessions for row in session.rows)


def measure(seconds: float, agents: int, say: Say) -> BandwidthReport:
    """Capture everything on a pair of our own. `seconds`: of each media stream; `agents`: as many calls at once as
    the guide's first row (0: none). Raises ConfigError for what the machine lacks, BackendError for what fails.
    """
    with pair() as cable:
        say("Encoding people's speech at every rate ...")
        coded = streams(seconds)
        say(f"Holding {len(LINES)} calls ...")
        with exchange(cable) as servers:
            calls = servers.watch(LINES)
            crowds = {}
            for line in CROWDS if agents else ():
                say(f"Holding {agents} calls of {line.name} at once ...")
                crowds[agents, line.name] = crowd_mbps(servers, line, agents)
        say(f"Sending {len(coded)} media streams for {seconds:g} s ...")
        with capturing(cable.caller) as captured:
            ports = media.exchange(cable, coded)
    sessions = [
        *_calls(calls, cable),
        *(
            stream_session(stream, captured.packets, *ports[stream.name][:2], server=cable.server.address)
            for stream in coded
        ),
    ]
    return BandwidthReport(
        tuple(sessions),
        qualities=tuple(quality_rows(sessions)),
        servers=(*server_rows(sessions, crowds), *forwarded_rows(projections())),
        projected=tuple(projections()),
        strangers=captured.strangers,
    )


def crowd_mbps(servers: Exchange, line: AudioPath, agents: int) -> float:
    """What so many calls at once put on the cable, both directions, acknowledgements included, while all are held."""
    watched = servers.watch([line] * agents)
    began, ended = max(call.began for call in watched.calls), min(call.ended for call in watched.calls)
    all_of_it = traffic(packet for packet in watched.packets if began <= packet.at <= ended).all
    return kbps(all_of_it.ip_bytes, ended - began) / 1000


def _calls(watched: Watched, cable: Pair) -> list[SessionKind]:
    return [call_session(call, watched.packets, cable.server.address) for call in watched.calls]
