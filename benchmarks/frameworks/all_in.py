"""Our own system as an operator starts it, with emulated engines of the comparison's fixed times."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.frameworks.timing import EngineTimes

# The whole answer at once, as every contender's engine gives it.
TOKENS_PER_S = 100_000


def configuration(sessions: int, engines: EngineTimes, port: int) -> dict[str, Any]:
    """A serve file: one replica a stage, since they share one core; what is said lasts about two seconds. Transcripts
    read finished, as those of the headless rows do.

    Hedging is off, as there is no second replica, and an engine that only sleeps needs no low priority; everything else
    is the default.
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
        "turn_detector": {"max_ongoing_requests": slots},
        "stt": emulated(engines.stt_ms, full_stop=True),
        "llm": emulated(engines.llm_ms, tokens=6, tokens_per_s=TOKENS_PER_S) | {"autoscaling": one, "nice": 0},
        "tts": emulated(engines.tts_ms),
        "hedging": {"enabled": False},
        # What is added is counted from a reply that begins when the turn is taken, for everybody.
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
    """How the server starts; JSON is YAML too."""
    return (sys.executable, "-m", "rejoinder.cli", "serve", str(config), "--address", "local")


def write(config: Path, document: dict[str, Any]) -> None:
    config.write_text(json.dumps(document), encoding="utf-8")


async def until_healthy(port: int) -> None:
    """Until callers reach the host; cancelling it stops asking."""
    while not await asyncio.to_thread(_healthy, f"http://127.0.0.1:{port}/healthz"):  # noqa: ASYNC110  # nothing tells
        await asyncio.sleep(0.2)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False
