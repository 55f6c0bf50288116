"""Reader of the question files: a caller's question, its conversation, and the rule that judges the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

from rejoinder.core.measuring.answer_rules import AnswerRule
from rejoinder.core.reply.prompt_window import ChatMessage, Role

FOLDER = Path(__file__).parent
TEST_SET = FOLDER / "questions.yaml"
"""The 100 questions of `rejoinder bench answers`."""
DEVELOPMENT_SET = FOLDER / "development.yaml"
"""Other questions, on which prompts may be tuned."""
_SPEAKERS: tuple[Role, ...] = ("user", "assistant")


@dataclass(frozen=True, slots=True)
class AnswerQuestion:
    """One question.

    Attributes:
        category: Name of the question's category.
        turns: The conversation. Its last message is the question, and earlier ones alternate between caller and
            assistant.
        rule: Judges the answer.
        right: Answers that the rule must accept.
        wrong: Answers that the rule must reject.
    """

    category: str
    turns: tuple[ChatMessage, ...]
    rule: AnswerRule
    right: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def text(self) -> str:
        """The question itself, without the earlier turns."""
        return self.turns[-1].content


def read_questions(path: Path = TEST_SET) -> list[AnswerQuestion]:
    """Return the questions of a file, in its order."""
    document: dict[str, list[dict[str, Any]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        AnswerQuestion(
            category,
            turns=_turns(entry["ask"]),
            rule=_rule(entry["rule"]),
            right=tuple(entry["right"]),
            wrong=tuple(entry["wrong"]),
        )
        for category, entries in document.items()
        for entry in entries
    ]


def _turns(ask: str | Sequence[str]) -> tuple[ChatMessage, ...]:
    texts = [ask] if isinstance(ask, str) else ask
    return tuple(ChatMessage(role, text) for role, text in zip(cycle(_SPEAKERS), texts, strict=False))


def _rule(fields: dict[str, Any]) -> AnswerRule:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    return AnswerRule(**values)
