"""Which of the configured openings fits what the caller said."""

from __future__ import annotations

from collections.abc import Sequence

from rejoinder.core.reply.prompt_window import ChatMessage
from rejoinder.core.reply.question_matching import normal
from rejoinder.core.settings.openings import Opening


def opening_for(openings: Sequence[Opening], prompt: Sequence[ChatMessage]) -> str:
    """The first that fits the prompt's last words, if they are the caller's; "" if none does.

    Not the one with which the answer before began: who asks twice is not put off with the same words.
    """
    if not openings or not prompt or prompt[-1].role != "user":
        return ""
    said = prompt[-1].content
    before = normal(next((message.content for message in reversed(prompt) if message.role == "assistant"), ""))
    fitting = (opening.say for opening in openings if _fits(opening, said))
    return next((say for say in fitting if not f"{before} ".startswith(f"{normal(say)} ")), "")


def _fits(opening: Opening, said: str) -> bool:
    if not opening.when:
        return said.rstrip().endswith("?")
    heard = f" {normal(said)} "
    return any(f" {normal(words)} " in heard for words in opening.when)
