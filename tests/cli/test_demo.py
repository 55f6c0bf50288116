"""Tests of `rejoinder demo`: the clips that it makes and the faults that it reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.results.turn_record import TurnOutcome, TurnRecord, unanswered_record
from loadtest.scenario.clips import read_clip
from rejoinder.cli.demo import INTERRUPTION, MAX_WER, QUESTIONS, faults_of, make_clips
from rejoinder.store.model_store import ModelStore

GOOD = replace(
    unanswered_record("1.wav", "what is the capital of france", run=1),
    heard="What is the capital of France?",
    answered="Paris.",
    outcome=TurnOutcome.ANSWERED.value,
    wer=0.0,
)


@pytest.mark.parametrize(
    "record",
    [GOOD, replace(GOOD, outcome=TurnOutcome.INTERRUPTED.value), replace(GOOD, wer=MAX_WER)],
    ids=["answered", "interrupted", "at the limit"],
)
def test_a_turn_that_was_answered_and_heard_has_no_fault(record: TurnRecord) -> None:
    """A turn has no fault if at most one word in ten was misheard and it was answered, even if interrupted."""
    assert not list(faults_of(record))


@pytest.mark.parametrize(
    ("record", "faults"),
    [
        (replace(GOOD, answered="", outcome=TurnOutcome.UNANSWERED.value), ["1.wav was not answered (unanswered)."]),
        (replace(GOOD, answered="Sorry.", outcome=TurnOutcome.FAILED.value), ["1.wav was not answered (failed)."]),
        (
            replace(GOOD, heard="What is it?", wer=0.5),
            ["1.wav was transcribed as 'What is it?' instead of 'what is the capital of france'."],
        ),
        (
            replace(GOOD, heard="", wer=None),
            ["1.wav was transcribed as '' instead of 'what is the capital of france'."],
        ),
    ],
    ids=["unanswered", "apology", "misheard", "not measured"],
)
def test_every_fault_is_reported(record: TurnRecord, faults: list[str]) -> None:
    """A turn that was not answered, or transcribed wrongly or not at all, is reported with the clip and the reason."""
    assert list(faults_of(record)) == faults


def test_the_interruption_follows_the_long_answer() -> None:
    """The last clip, which interrupts a reply, comes after the question about the history of the city."""
    assert len(QUESTIONS) == INTERRUPTION
    assert "history of the city" in QUESTIONS[INTERRUPTION - 2].text


@pytest.mark.models
def test_every_question_becomes_a_clip_with_its_true_text(tmp_path: Path, store: ModelStore) -> None:
    """Each clip has the true text of its speech, and its name states whether the voice is human or synthetic."""
    clips = [read_clip(path) for path in make_clips(tmp_path, store)]
    assert len(clips) == len(QUESTIONS)
    for clip, question in zip(clips, QUESTIONS, strict=True):
        assert clip.expected == (question.text or "we had everything before us, we had nothing before us,")
        assert ("human" in clip.name) == bool(question.recording)
        assert ("synthetic" in clip.name) != bool(question.recording)
