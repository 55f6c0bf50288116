"""Selection of a configured opening: a fixed phrase with which an answer starts."""

from __future__ import annotations

from collections.abc import Sequence

from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.question_matching import normalize
from rejoinder.core.settings.openings import Opening


def opening_for(openings: Sequence[Opening], prompt: Sequence[ChatMessage]) -> str:
    """Return the text of the first opening that matches the caller's last words, or "" if none matches.

    An opening that started the previous answer is skipped, so that two answers in a row start differently.

    Args:
        openings: The configured openings, in order of preference.
        prompt: The prompt of the reply. Only a prompt that ends with a user message gets an opening.
    """
    if not openings or not prompt or prompt[-1].role != "user":
        return ""
    question = prompt[-1].content
    previous = normalize(next((message.content for message in reversed(prompt) if message.role == "assistant"), ""))
    matching = (opening.say for opening in openings if _matches(opening, question))
    return next((say for say in matching if not f"{previous} ".startswith(f"{normalize(say)} ")), "")


def _matches(opening: Opening, question: str) -> bool:
    """Return True if the question contains one of the phrases in `opening.when`.

    An opening without phrases matches every question that ends with "?".
    """
    if not opening.when:
        return question.rstrip().endswith("?")
    padded = f" {normalize(question)} "
    return any(f" {normalize(words)} " in padded for words in opening.when)
