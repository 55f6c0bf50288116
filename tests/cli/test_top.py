"""Tests of `rejoinder top`: what the view says, and what it prints for scripts."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console
from typer.testing import CliRunner

from cluster.environment import free_port
from cluster.monitoring.live_view import StageLoadRow, SystemFrame, TurnTimes
from rejoinder.cli.main import app
from rejoinder.cli.top import view
from rejoinder.core.errors import BackendError

STAGE = StageLoadRow(
    "llm",
    running=2,
    wanted=3,
    in_flight=4,
    utilisation=0.75,
    requests_per_s=1.5,
    failed=1,
    queue_p95_ms=12.0,
    service_p95_ms=340.0,
    memory_mb=812.0,
    cores=1.25,
)
FRAME = SystemFrame(
    60.0,
    calls=12,
    places=64,
    free=52,
    served=40,
    limit="utilisation",
    turns_per_s=1.5,
    times=(
        TurnTimes("turn", 90, p50_ms=700.0, p95_ms=1100.0, p99_ms=None, alert=True),
        TurnTimes("stt", 90, p50_ms=120.0, p95_ms=180.0, p99_ms=200.0, added_ms=95.0),
    ),
    stages=(STAGE, replace(STAGE, stage="tts", wanted=None, utilisation=None, queue_p95_ms=None)),
    events={"hedges": {"sent": 3, "won": 1}, "circuit breakers": {}},
    silent=(),
)


def printed(shown: SystemFrame, fault: str = "") -> list[list[str]]:
    """Return the printed view as lines of words."""
    output = io.StringIO()
    Console(width=160, file=output).print(view(shown, "http://voice.example", fault))
    return [line.split() for line in output.getvalue().splitlines()]


def test_the_view_has_calls_places_percentiles_replicas_and_events() -> None:
    """Unknown figures are a dash, and events that did not happen are "none"."""
    lines = printed(FRAME)
    summary = "calls 12, turns/s 1.50   places 64, free 52, by stages 40 (utilisation)"
    assert summary.split() in lines
    assert ["turn", "90", "-", "700", "1100", "-"] in lines
    assert ["stt", "90", "95", "120", "180", "200"] in lines
    assert ["llm", "2", "3", "4", "75%", "1.5", "1", "12", "340", "1.25", "812"] in lines
    assert ["tts", "2", "-", "4", "-", "1.5", "1", "-", "340", "1.25", "812"] in lines
    assert ["hedges", "sent", "3,", "won", "1"] in lines
    assert ["circuit", "breakers", "none"] in lines


def test_silent_replicas_and_faults_are_named() -> None:
    """A replica that does not answer is named, and so is why the figures are old."""
    text = "\n".join(" ".join(line) for line in printed(replace(FRAME, silent=("Llm#1",)), "The host is gone."))
    assert "1 replicas do not answer: Llm#1" in text
    assert "The host is gone." in text


def test_nothing_answers() -> None:
    """Without a server the command raises a typed error, which `rejoinder` prints with exit status 2."""
    result = CliRunner().invoke(app, ["top", "--once", "--url", f"http://127.0.0.1:{free_port()}"])
    assert isinstance(result.exception, BackendError)


def test_a_time_that_is_too_short_is_refused() -> None:
    """Replicas are not read more often than twice a second."""
    result = CliRunner().invoke(app, ["top", "--every", "0.1"])
    assert result.exit_code == 2
