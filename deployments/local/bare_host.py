"""One host with its real wire and no Ray: `python -m deployments.local.bare_host`, for measuring what a session sends.

The routes, the transport, the sessions and the web server are those of production; stt, llm and tts are emulated,
voice activity and the turn detector are the real ones, all in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from typing import Any

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry

from actors.host import Host, hold_phrases
from actors.stages.ports import Stages
from actors.stages.services import Services
from deployments.engines.emulated import EmulatedStt, EmulatedTts
from deployments.engines.speech_in.noise import suppressors
from deployments.llm import Llm
from deployments.local.in_process import DirectLlm, DirectStt, DirectTts, DirectTurnDetector, InlineVad
from deployments.serving.http_routes import http_app
from deployments.serving.journal import LogJournal
from deployments.serving.metrics import ConversationMetrics
from deployments.transports.call_protocol import CallProtocol
from deployments.turn_detector import TurnDetector
from deployments.vad import load_silero
from rejoinder.core.measuring.service_curves import STACKS
from rejoinder.core.settings.settings import Settings, parse_settings


@dataclass(frozen=True)
class BareHost:
    """A host as `http_app` wants it, open to everybody who reaches its address."""

    host: Host
    keys: frozenset[str] = frozenset()

    async def targets(self) -> list[dict[str, Any]]:
        return []


def emulating(stack: str) -> Settings:
    """The default settings with the three engines of an emulated stack; raises ConfigError for an unknown profile."""
    stages: dict[str, dict[str, Any]] = {
        stage: {"engine": "emulated", "emulation": {"profile": name}} for stage, name in STACKS[stack].items()
    }
    # The engines share this process: none may lower everybody's priority.
    stages["llm"]["nice"] = 0
    return parse_settings(stages)


def stages_of(settings: Settings) -> Stages:
    """The stages of settings whose stt, llm and tts are emulated, in this process."""
    vad, turn_detector = load_silero(settings), TurnDetector(settings)
    stt, llm, tts = EmulatedStt(settings), Llm(settings), EmulatedTts(settings)
    return Stages(
        InlineVad(vad),
        turn_detector=DirectTurnDetector(turn_detector),
        stt=DirectStt(stt),
        llm=DirectLlm(llm),
        tts=DirectTts(tts),
        suppressor=suppressors(settings.noise),
    )


async def serve(settings: Settings, address: str, port: int, tls: tuple[str, str] | None = None) -> None:
    """Until a signal ends it; `tls`: certificate and key files."""
    stages, clock = stages_of(settings), time.monotonic
    metrics = ConversationMetrics(CollectorRegistry())
    phrases = await hold_phrases(stages, settings.conversation)
    host = Host(
        Services.over(stages, settings=settings, phrases=phrases, metrics=metrics, journal=LogJournal(), clock=clock)
    )
    running = asyncio.create_task(host.run())
    certificate, key = tls or (None, None)
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
    try:
        await uvicorn.Server(config).serve()
    finally:
        running.cancel()


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--emulate", choices=sorted(STACKS), default="guide-800")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args()
    tls = (options.certificate, options.key) if options.certificate else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(emulating(options.emulate), options.address, options.port, tls))


if __name__ == "__main__":
    main()
