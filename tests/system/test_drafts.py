"""What a discarded draft sounds like is never heard: hesitant callers on the wire of a real server."""

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
def test_no_sound_of_a_discarded_revision_reaches_a_client(tmp_path: Path) -> None:
    """Eight callers, two turns each, of which most pause inside: `rejoinder bench drafts` has the large run.

    Every answer is of the committed revision, by words and sound, and drafts with audio ready were discarded meanwhile.
    """
    with serving(tmp_path, SETTINGS) as system:
        found = converse(system.url, CALLERS, TURNS, hesitating=0.8, seed=7)
    said = "\n".join(remarks(found))
    assert (found.evidence.leaks, found.evidence.misheard) == ((), ()), said
    assert found.drafts("discarded_ready") > 0, said
    assert found.holds, said
