"""Tests of the table, the verdict and the JSON of `rejoinder bench drafts`.

The bench looks for leaks: audio of a discarded draft (speculative reply) that reached the caller.
"""

from __future__ import annotations

import json
from dataclasses import replace

from loadtest.benches.drafts.evidence import NOTHING, Leak
from loadtest.benches.drafts.verdict import DraftFindings
from rejoinder.cli.bench.drafts import document, remarks, settings, table
from tests.cli.printing import printed_rows
from tests.loadtest.results.sample_results import idle_stage

DRAFTS = {"begun": 18.0, "kept": 10.0, "discarded": 8.0, "discarded_ready": 5.0}
SEEN = replace(NOTHING, turns=10, hesitant=6, unanswered=0, utterances=11, premature=1, judged_s=20.4)
LEAK = Leak(3, why="sound of another revision", expected=27, found=(13,), audio_s=0.5)


def run(leaks: tuple[Leak, ...] = ()) -> DraftFindings:
    host = idle_stage("host", drafts=DRAFTS)
    turn_model = idle_stage("turn_detector", requests=2, ends={"done": 2.0})
    stages = {"host": host, "turn_detector": turn_model}
    return DraftFindings(
        2, hesitations=8, evidence=replace(SEEN, leaks=leaks), stages=stages, restarted=(), late_ms=1.5, took_s=61.0
    )


def test_the_table_has_turns_drafts_and_leaks() -> None:
    """The table has a row for answered turns, premature ends of turn, drafts, discarded drafts and leaks."""
    rows = dict(printed_rows(table(run((LEAK,)))))
    assert rows["answered"] == "10"
    assert rows["ended inside a pause (premature)"] == "1"
    assert (rows["drafts begun"], rows["discarded"], rows["of them with audio ready"]) == ("18", "8", "5")
    assert rows["leaks"] == "1"


def test_the_verdict_names_each_leak() -> None:
    """Each leak is printed with the marks heard, the mark expected and its length in s. A mark identifies an answer.

    With a leak the verdict is FAIL, without one PASS.
    """
    text = "\n".join(remarks(run((LEAK,))))
    assert "turn 3: sound of another revision: (13,) instead of 27, 0.50 s" in text
    assert "FAIL: 1 leaks; 10 of 10 turns answered." in text
    assert "Turn detector requests: 2." in text
    assert "PASS: no discarded draft was audible" in "\n".join(remarks(run()))


def test_the_document_has_counts_and_leaks() -> None:
    """The JSON has the verdict, the counts of turns, drafts and requests, and each leak."""
    written = json.loads(json.dumps(document(run((LEAK,)))))
    assert (written["holds"], written["turns"], written["drafts"]["discarded"]) == (False, 10, 8)
    assert written["leaks"] == [
        {"turn": 3, "why": "sound of another revision", "expected": 27, "found": [13], "audio_s": 0.5}
    ]
    assert written["requests"]["turn_detector"] == {"done": 2}


def test_one_host_has_room_for_all_callers() -> None:
    """The bench's settings allow as many sessions on the host as it has callers, and at least the default of 100."""
    assert settings(300).host.max_sessions == 300
    assert settings(1).host.max_sessions == 100
