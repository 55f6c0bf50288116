"""One session host without Ray: `python -m deployments.local.bare_host`. For benchmarks only.

`rejoinder load bandwidth` starts it to measure what a session sends over the network. HTTP routes, transport, sessions
and web server are the product's own. Speech-to-text, language model and text-to-speech are emulated. Voice activity and
turn detection are real. Everything runs in this process. Other benchmarks use `running_host` over stages of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from actors.host import Host, synthesize_held_clips
from actors.stages.ports import LlmPort, Stages, SttPort, TtsPort
from actors.stages.services import Services
from actors.survival.snapshot_store import LocalSnapshots
from deployments.engines.emulated import EmulatedStt, EmulatedTts
from deployments.engines.speech_in.noise import suppressors
from deployments.llm import Llm
from deployments.local.in_process import DirectLlm, DirectStt, DirectTts, DirectTurnDetector, InlineVad
from deployments.serving.http_routes import http_app
from deployments.serving.journal import LogJournal
from deployments.serving.metrics import ConversationMetrics
from deployments.serving.regions import RegionDirectory, places_of
from deployments.survival.keeping import open_keeper
from deployments.tool_servers.opening import open_tool_servers
from deployments.transports.call_protocol import CallProtocol
from deployments.turn_detector import TurnDetector
from deployments.vad import load_silero
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.measuring.service_curves import STACKS
from rejoinder.core.settings.regions import RegionSettings
from rejoinder.core.settings.settings import Settings, parse_settings


@dataclass(frozen=True)
class BareHost:
    """The host object that `http_app` needs, without Ray. It requires no API key."""

    host: Host
    access: AccessControl = field(default_factory=AccessControl)

    async def targets(self) -> list[dict[str, Any]]:
        """Return an empty list of Prometheus targets, because there are no replicas."""
        return []

    async def places(self) -> dict[str, int]:
        """Return the places of the only host."""
        return places_of([{"sessions": self.host.live, "max_sessions": self.host.services.settings.host.max_sessions}])

    async def regions(self) -> dict[str, Any]:
        """Return the systems of all regions, asked anew each time."""
        return await RegionDirectory(self.host.services.settings.regions, self.places).listing()


def emulated_settings(stack: str) -> Settings:
    """Return the default settings with the emulated engines of `stack`, a key of STACKS."""
    stages: dict[str, dict[str, Any]] = {
        stage: {"engine": "emulated", "emulation": {"profile": name}} for stage, name in STACKS[stack].items()
    }
    # All engines share this process, so the language model must not lower its priority.
    stages["llm"]["nice"] = 0
    return parse_settings(stages)


def stages_of(settings: Settings) -> Stages:
    """Open the stages in this process and return their ports.

    `stt`, `llm` and `tts` must be emulated in the settings.
    """
    stt, llm, tts = EmulatedStt(settings), Llm(settings), EmulatedTts(settings)
    return stages_over(settings, stt=DirectStt(stt), llm=DirectLlm(llm), tts=DirectTts(tts))


def stages_over(settings: Settings, *, stt: SttPort, llm: LlmPort, tts: TtsPort) -> Stages:
    """Return stages with the given ports. Voice activity, turn detector and noise suppression run in this process."""
    return Stages(
        InlineVad(load_silero(settings)),
        turn_detector=DirectTurnDetector(TurnDetector(settings)),
        stt=stt,
        llm=llm,
        tts=tts,
        suppressor=suppressors(settings.noise),
    )


@asynccontextmanager
async def running_host(stages: Stages, settings: Settings, clock: Callable[[], float]) -> AsyncIterator[Host]:
    """Yield a host that runs over these stages until the block ends. `clock` returns monotonic time in seconds."""
    phrases = await synthesize_held_clips(
        stages,
        settings.conversation,
        language=settings.tts.spoken_language,
        lead_ins=settings.tools.spoken,
    )
    metrics = ConversationMetrics(CollectorRegistry())
    services = Services.over(
        stages,
        settings=settings,
        phrases=phrases,
        metrics=metrics,
        journal=LogJournal(),
        clock=clock,
        tool_servers=open_tool_servers(settings.tools),
    )
    host = Host(services, keeper=open_keeper(settings, LocalSnapshots(settings.journal), metrics, clock))
    running = asyncio.create_task(host.run())
    try:
        yield host
    finally:
        running.cancel()
        await asyncio.wait({running})


async def serve(settings: Settings, address: str, port: int, tls: tuple[str, str] | None = None) -> None:
    """Serve until a signal ends the process.

    Args:
        settings: Settings of the host and its stages.
        address: Address to listen on.
        port: Port to listen on.
        tls: Paths of the certificate and the key, or None for plain HTTP.
    """
    certificate, key = tls or (None, None)
    async with running_host(stages_of(settings), settings, time.monotonic) as host:
        config = uvicorn.Config(
            http_app(BareHost(host)),
            host=address,
            port=port,
            lifespan="off",
            log_level="warning",
            ws=CallProtocol,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        await uvicorn.Server(config).serve()


def main() -> None:
    """Parse the command line and serve with the chosen emulated engines until a signal ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--emulate", choices=sorted(STACKS), default="guide-800")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--region", default="", help="name of this server's region")
    parser.add_argument("--entry", action="append", default=[], metavar="NAME=URL", help="a region's base URL")
    parser.add_argument("--no-dtx", action="store_true", help="send silence over WebRTC, too")
    options = parser.parse_args()
    tls = (options.certificate, options.key) if options.certificate else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        settings = emulated_settings(options.emulate)
        regions = RegionSettings(name=options.region, entries=dict(entry.split("=", 1) for entry in options.entry))
        webrtc = settings.webrtc.model_copy(update={"dtx": not options.no_dtx})
        settings = settings.model_copy(update={"regions": regions, "webrtc": webrtc})
        runner.run(serve(settings, options.address, options.port, tls))


if __name__ == "__main__":
    main()
