"""Tests of `rejoinder demo`: the clips that it makes and the faults that it reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.results.turn_record import TurnOutcome, TurnRecord, unanswered_record
from loadtest.scenario.clips import read_clip
from rejoinder.cli.demo import INTERRUPTION, MAX_WER, QUESTIONS, DemoLine, faults_of, make_clips
from rejoinder.core.measuring.answer_rules import AnswerFault, AnswerRule
from rejoinder.store.model_store import ModelStore

PARIS = AnswerRule(all=("paris",))
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
    assert not list(faults_of(record, PARIS))


@pytest.mark.parametrize(
    ("record", "faults"),
    [
        (replace(GOOD, answered="", outcome=TurnOutcome.UNANSWERED.value), ["1.wav was not answered (unanswered)."]),
        (
            replace(GOOD, answered="The capital is Lyon."),
            ["1.wav was answered with 'The capital is Lyon.' (wrong content)."],
        ),
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
    ids=["unanswered", "wrong answer", "apology", "misheard", "not measured"],
)
def test_every_fault_is_reported(record: TurnRecord, faults: list[str]) -> None:
    """A turn that was not answered, or transcribed wrongly or not at all, is reported with the clip and the reason."""
    assert list(faults_of(record, PARIS)) == faults


def test_the_interruption_follows_the_long_answer() -> None:
    """The last clip, which interrupts a reply, comes after the question about the soups, which has a long answer."""
    assert len(QUESTIONS) == INTERRUPTION
    assert "soup" in QUESTIONS[INTERRUPTION - 2].text


@pytest.mark.parametrize(
    ("number", "right", "wrong"),
    [
        (1, "Sure, a table for four people on Friday.", "I'm sorry, I can't book tables."),
        (2, "Your number is 555-012-3456.", "Your number is 555-012-345."),
        (3, "On Friday.", "Your table is on Monday."),
        (4, "We have tomato soup and onion soup.", "I am a dish."),
        (5, "The capital of Italy is Rome.", "Il Coriobergio, il Coriobello"),
    ],
)
def test_a_line_of_the_demo_wants_a_sane_answer(number: int, right: str, wrong: str) -> None:
    """The rule of each line accepts an answer that fits and refuses one that does not."""
    rule = QUESTIONS[number - 1].rule
    assert rule.fault(right) is None
    assert rule.fault(wrong) in (AnswerFault.CONTENT, AnswerFault.LANGUAGE)


@pytest.mark.models
def test_every_question_becomes_a_clip_with_its_true_text(tmp_path: Path, store: ModelStore) -> None:
    """Each clip has the true text of its speech."""
    clips = [read_clip(path) for path in make_clips(tmp_path, store)]
    assert [clip.expected for clip in clips] == [question.text for question in QUESTIONS]


@pytest.mark.models
def test_a_recording_has_the_text_of_its_reading(tmp_path: Path, store: ModelStore) -> None:
    """A line that is a human recording gets the text that was read."""
    (path,) = make_clips(tmp_path, store, [DemoLine("human-dickens", recording="two_cities.wav@20.9")])
    assert read_clip(path).expected == "we had everything before us, we had nothing before us,"
