"""Tests of the tables, the JSON and the exit status of `rejoinder load bandwidth`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.table import Table

from loadtest.bandwidth import run
from loadtest.bandwidth.formula import NetworkLoad
from loadtest.bandwidth.rows import SessionKind
from loadtest.bandwidth.run import BandwidthReport
from loadtest.bandwidth.tables import QUALITIES, forwarded_rows, projections, quality_rows, server_rows
from loadtest.bandwidth.webrtc_call import WebRtcRow
from rejoinder.cli.load import bandwidth as load_bandwidth
from rejoinder.cli.load.bandwidth_tables import tables
from tests.loadtest.bandwidth.test_tables import session

NAMES = [
    f"Opus {rate:g}k, 20 ms{', stereo' if quality.channels == 2 else ''}"
    for quality in QUALITIES
    for rate in (quality.low_kbps, quality.high_kbps)
]


def report(*, spoiled: bool = False) -> BandwidthReport:
    media = [session(name, 50, transport="SRTP over UDP") for name in NAMES]
    sockets = [session("PCM16 24 kHz, 20 ms up", 555, 343), session("G.711 mu-law, 20 ms up", 129, 71)]
    sessions: list[SessionKind] = [*sockets, *media]
    if spoiled:
        first, *others = sessions[0].rows
        bad = replace(first, formula=NetworkLoad(first.formula.ip_bytes * 1.04, first.formula.packets))
        sessions[0] = replace(sessions[0], rows=(bad, *others))
    servers = (*server_rows(sessions, {(10, "G.711 mu-law, 20 ms up"): 2.05}), *forwarded_rows(projections()))
    return BandwidthReport(
        tuple(sessions),
        qualities=tuple(quality_rows(sessions)),
        servers=servers,
        projected=tuple(projections()),
        webrtc=(WebRtcRow(True, "up", 57.6, 51.9, call_kbps=21.2, call_pps=20.7, talking_share=0.3),),
        strangers=0,
    )


def printed(shown: list[Table]) -> str:
    console = Console(width=300, record=True)
    for table in shown:
        console.print(table)
    return console.export_text()


def test_every_table_is_printed() -> None:
    """The tables have the measured sessions over WebSocket, SRTP and WebRTC, and the guide's rows with verdicts.

    They also have the rate measured with 10 sessions, and rates that were computed by formula.
    """
    text = printed(tables(report()))
    for expected in (
        "PCM16 24 kHz, 20 ms up",
        "Narrowband",
        "does not hold",
        "2.05",
        "10000",
        "4 legs (formula)",
        "Opus 32k, 20 ms, DTX",
    ):
        assert expected in text
    assert "G.711 mu-law, 20 ms up: 200 kbps a session" in text


def test_the_json_contains_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each kind of session the JSON has four rows: each direction, while it carries speech and over the whole call.

    It also has the verdicts of the latency guide's tables. If all rows match their formula, no error is raised.
    """
    monkeypatch.setattr(run, "measure", lambda seconds, agents, say: report())
    load_bandwidth.bandwidth(4, 0, tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert found["ok"] is True
    assert {len(entry["rows"]) for entry in found["sessions"]} == {4}
    assert len(found["sessions"]) == len(NAMES) + 2
    assert found["servers"][0]["verdict"] == "does not hold"
    assert found["qualities"][0]["instead"]
    assert found["webrtc"][0]["call_kbps"] == 21.2


def test_a_row_beyond_three_percent_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a measured row differs by more than 3% from its formula, the exit status is 1."""
    monkeypatch.setattr(run, "measure", lambda seconds, agents, say: report(spoiled=True))
    with pytest.raises(typer.Exit) as ended:
        load_bandwidth.bandwidth(4, 0, None)
    assert ended.value.exit_code == 1
