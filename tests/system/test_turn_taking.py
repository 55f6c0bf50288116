"""Test of one event of the turn-taking corpus with a real session and real engines. Idle time is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.local.skipping_clock import Pace
from loadtest.benches.turn_taking import EventOutcome
from loadtest.turn_corpus import audio
from loadtest.turn_corpus.recipe import events
from rejoinder.cli.bench.turn_taking import measure

pytestmark = [pytest.mark.timed, pytest.mark.models, pytest.mark.timeout(180)]


def test_a_person_is_heard_and_answered_by_the_real_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A human recording of the corpus is transcribed and gets an audible answer less than 6 s after its end."""
    monkeypatch.setattr(audio, "cache_folder", lambda: tmp_path)
    event = next(event for event in events() if event.id == "human.two_cities.wav/natural-20.9")
    outcomes: list[EventOutcome] = []
    measure([event], "auto", Pace.REAL, outcomes.append)
    (outcome,) = outcomes
    assert outcome.answered_s is not None
    assert outcome.answered_s < 6
    assert any("everything" in text for text in outcome.heard)
