"""Contender: Rejoinder as an operator starts it (`rejoinder serve` on Ray), with engines that take fixed times."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.frameworks.timing import EngineTimes

# Rate of the emulated language model. It gives the whole answer at once, like the engines of every other contender.
TOKENS_PER_S = 100_000


def configuration(sessions: int, engines: EngineTimes, port: int) -> dict[str, Any]:
    """Return a serve file with one replica per stage, because all stages share one core.

    Transcripts end with a full stop, like those of the contenders without a network. A reply has six words, about two
    seconds of audio. Hedging is off, because there is no second replica. The language model keeps normal priority,
    because its emulated engine only sleeps. Speculative replies are off. All other settings are the defaults.

    Args:
        sessions: Maximum number of sessions of the host.
        engines: Median service times of speech to text, language model and text to speech.
        port: HTTP port on loopback.
    """
    slots = 4 * sessions + 16

    def emulated(median_ms: float, **more: object) -> dict[str, Any]:
        return {
            "engine": "emulated",
            "max_ongoing_requests": slots,
            "emulation": {"curve": {"median_ms": median_ms}, "slots": slots, **more},
        }

    one = {"min_replicas": 1, "max_replicas": 1}
    settings: dict[str, Any] = {
        "host": {"max_sessions": sessions},
        "admission": {"enabled": False},  # the contenders have no admission control
        "turn_detector": {"max_ongoing_requests": slots},
        "stt": emulated(engines.stt_ms, full_stop=True),
        "llm": emulated(engines.llm_ms, tokens=6, tokens_per_s=TOKENS_PER_S) | {"autoscaling": one, "nice": 0},
        "tts": emulated(engines.tts_ms),
        "hedging": {"enabled": False},
        # No speculative replies: the ideal latency of every contender assumes a reply that begins at the end of turn.
        "speculation": {"enabled": False},
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {"name": "rejoinder", "route_prefix": "/", "import_path": "deployments.app:build", "args": settings}
        ],
    }


def command(config: Path) -> tuple[str, ...]:
    """Return the command line that starts the server with the serve file `config`. JSON is valid YAML."""
    return (sys.executable, "-m", "rejoinder.cli", "serve", str(config), "--address", "local")


def write(config: Path, document: dict[str, Any]) -> None:
    """Write a serve file as JSON."""
    config.write_text(json.dumps(document), encoding="utf-8")


async def until_healthy(port: int) -> None:
    """Wait, without a time limit, until `/healthz` on this loopback port returns status 200."""
    while not await asyncio.to_thread(_healthy, f"http://127.0.0.1:{port}/healthz"):  # noqa: ASYNC110  # poll only
        await asyncio.sleep(0.2)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False
