"""Test of speculative replies (drafts): callers of a real server never receive audio of a discarded one."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.benches.drafts.verdict import SETTINGS
from rejoinder.cli.bench.drafts import converse, remarks
from tests.system.harness.served import serving

CALLERS, TURNS = 8, 2


@pytest.mark.ray
@pytest.mark.models
@pytest.mark.timeout(240)
def test_no_audio_of_a_discarded_reply_reaches_a_client(tmp_path: Path) -> None:
    """Text and audio of every answer belong to the final transcript of its turn, although drafts were discarded.

    Some discarded drafts had finished audio. Eight callers have two turns each, most of them with a pause inside.
    `rejoinder bench drafts` does the same with more calls.
    """
    with serving(tmp_path, SETTINGS) as system:
        found = converse(system.url, CALLERS, TURNS, hesitating=0.8, seed=7)
    said = "\n".join(remarks(found))
    assert (found.evidence.leaks, found.evidence.misheard) == ((), ()), said
    assert found.drafts("discarded_ready") > 0, said
    assert found.holds, said
