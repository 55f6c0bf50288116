"""Entry point of `rejoinder load bandwidth`.

It measures single calls, media streams and many calls at once, and compares the results with the latency guide's
tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.bandwidth import media
from loadtest.bandwidth.caller import AudioPath
from loadtest.bandwidth.calls import AUDIO_PATHS, BandwidthServers, CapturedCalls, running_servers
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
from loadtest.bandwidth.webrtc_call import WebRtcRow

ReportProgress = Callable[[str], None]

# Audio paths that are also measured with many calls at once: the first two with 20 ms messages and without TLS.
CONCURRENT_PATHS = tuple(path for path in AUDIO_PATHS if path.message_ms == 20 and not path.tls)[:2]


@dataclass(frozen=True, slots=True)
class BandwidthReport:
    """All measurements and the tables computed from them.

    Attributes:
        sessions: Measurements of every kind of session.
        qualities: The latency guide's per-agent table, compared with the measurements.
        servers: The latency guide's server table, compared with the measurements.
        projected: Configurations computed by formula only.
        webrtc: Measurements of calls over WebRTC, with DTX and without. No formula covers their events and reports.
        strangers: Number of captured frames that are not IPv4. They are left out of every figure.
    """

    sessions: tuple[SessionKind, ...]
    qualities: tuple[QualityRow, ...]
    servers: tuple[ServerRow, ...]
    projected: tuple[Projection, ...]
    webrtc: tuple[WebRtcRow, ...]
    strangers: int

    @property
    def ok(self) -> bool:
        """True if the measurement of every row agrees with its formula within `rows.TOLERANCE`."""
        return all(row.ok for session in self.sessions for row in session.rows)


def measure(seconds: float, agents: int, report_progress: ReportProgress) -> BandwidthReport:
    """Run every measurement on a new virtual Ethernet pair and return the report.

    Args:
        seconds: Length of each media stream in seconds.
        agents: Number of calls to make at the same time, to check the guide's server table. 0 skips this part.
        report_progress: Called with a line of text when a part begins.

    Raises:
        ConfigError: The machine lacks root, a tool or the recorded speech.
        BackendError: A call, a stream or a capture failed.
    """
    with pair() as network:
        report_progress("Encoding human speech at every rate ...")
        coded = streams(seconds)
        report_progress(f"Holding {len(AUDIO_PATHS)} calls ...")
        with running_servers(network) as servers:
            calls = servers.capture_calls(AUDIO_PATHS)
            measured_mbps = {}
            for path in CONCURRENT_PATHS if agents else ():
                report_progress(f"Holding {agents} calls at the same time: {path.name} ...")
                measured_mbps[agents, path.name] = concurrent_mbps(servers, path, agents)
            report_progress("Holding calls over WebRTC, with DTX and without ...")
            webrtc = servers.measure_webrtc()
        report_progress(f"Sending {len(coded)} media streams for {seconds:g} s ...")
        with capturing(network.caller) as captured:
            ports = media.send_streams(network, coded)
    sessions = [
        *_calls(calls, network),
        *(
            stream_session(stream, captured.packets, *ports[stream.name][:2], server=network.server.address)
            for stream in coded
        ),
    ]
    return BandwidthReport(
        tuple(sessions),
        qualities=tuple(quality_rows(sessions)),
        servers=(*server_rows(sessions, measured_mbps), *forwarded_rows(projections())),
        projected=tuple(projections()),
        webrtc=tuple(webrtc),
        strangers=captured.other_frames,
    )


def concurrent_mbps(servers: BandwidthServers, path: AudioPath, agents: int) -> float:
    """Make `agents` calls at the same time and return their total rate in megabits per second.

    The rate is that of both directions, with acknowledgements. Only the time in which all calls are open counts.
    """
    captured = servers.capture_calls([path] * agents)
    began, ended = max(call.began for call in captured.calls), min(call.ended for call in captured.calls)
    total = traffic(packet for packet in captured.packets if began <= packet.at <= ended).all
    return kbps(total.ip_bytes, ended - began) / 1000


def _calls(captured: CapturedCalls, network: Pair) -> list[SessionKind]:
    return [call_session(call, captured.packets, network.server.address) for call in captured.calls]
