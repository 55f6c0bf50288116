"""Tests of the questions of `rejoinder bench answers`: each rule accepts right answers and rejects wrong ones."""

from __future__ import annotations

from collections import Counter

import pytest

from loadtest.benches.answers.questions import DEVELOPMENT_SET, TEST_SET, AnswerQuestion, read_questions
from rejoinder.core.measuring.answer_rules import AnswerFault

QUESTIONS = [*read_questions(TEST_SET), *read_questions(DEVELOPMENT_SET)]
FOREIGN = (
    "La capital de Francia es París y el río se llama Sena.",
    "Die Antwort ist nicht so einfach, und ich weiß es nicht.",
    "法国的首都是巴黎。",
)


def name_of(question: AnswerQuestion) -> str:
    return f"{question.category}: {question.text}"


@pytest.mark.parametrize("question", QUESTIONS, ids=name_of)
def test_a_rule_accepts_right_answers(question: AnswerQuestion) -> None:
    """Each rule accepts every answer that the file lists as right."""
    assert {answer: question.rule.fault(answer) for answer in question.right} == dict.fromkeys(question.right)


@pytest.mark.parametrize("question", QUESTIONS, ids=name_of)
def test_a_rule_rejects_wrong_answers(question: AnswerQuestion) -> None:
    """Each rule rejects every answer that the file lists as wrong, because of its content."""
    faults = {answer: question.rule.fault(answer) for answer in question.wrong}
    assert faults == dict.fromkeys(question.wrong, AnswerFault.CONTENT)


@pytest.mark.parametrize("question", QUESTIONS, ids=name_of)
def test_a_rule_rejects_what_no_caller_understands(question: AnswerQuestion) -> None:
    """Each rule rejects an empty answer, other languages, and an endless repetition behind a right answer."""
    assert question.rule.fault(" ") is AnswerFault.EMPTY
    assert [question.rule.fault(answer) for answer in FOREIGN] == [AnswerFault.LANGUAGE] * len(FOREIGN)
    assert question.rule.fault("```python\nprint(1)\n```") is AnswerFault.GIBBERISH
    if not (question.rule.repeats or question.rule.digits):
        looped = question.right[0] + " il Coriobergio" * 5
        assert question.rule.fault(looped) in (AnswerFault.GIBBERISH, AnswerFault.LANGUAGE)


def test_there_are_ten_questions_in_each_of_ten_categories() -> None:
    """The test set has 100 questions: ten in each of the ten categories."""
    counts = Counter(question.category for question in read_questions(TEST_SET))
    assert list(counts.values()) == [10] * 10
    assert {"facts", "arithmetic", "memory of an earlier turn", "interruption"} <= counts.keys()


def test_no_question_is_asked_twice_or_in_both_sets() -> None:
    """Prompts are tuned on the development set, so that it shares no question with the test set."""
    asked = Counter(question.turns for question in QUESTIONS)
    assert max(asked.values()) == 1
    texts = [{question.text.lower() for question in read_questions(path)} for path in (TEST_SET, DEVELOPMENT_SET)]
    assert not texts[0] & texts[1]


def test_every_question_has_samples_of_both_kinds() -> None:
    """Every question lists answers that its rule must accept, and at least two that it must reject."""
    assert all(question.right and len(question.wrong) >= 2 for question in QUESTIONS)
