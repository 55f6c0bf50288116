"""An opening fits what the caller said, or there is none."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pydantic import ValidationError

from rejoinder.core.reply.openings import opening_for
from rejoinder.core.reply.prompt_window import ChatMessage, Role
from rejoinder.core.settings.settings import ConversationSettings, Opening

CHECK = Opening(say="Let me check that for you.", when=("order", "check the status"))
LOOK = Opening(say="Let me look.", when=("order",))
GOOD = Opening(say="Good question.")
ALL = (CHECK, LOOK, GOOD)


def prompt(*said: str) -> tuple[ChatMessage, ...]:
    """A conversation in which caller and assistant take turns; the caller spoke last."""
    roles: tuple[Role, Role] = ("user", "assistant") if len(said) % 2 else ("assistant", "user")
    turns = [ChatMessage(roles[number % 2], text) for number, text in enumerate(said)]
    return (ChatMessage("system", "Be kind."), *turns)


@pytest.mark.parametrize(
    ("said", "say"),
    [
        ("Where is my ORDER, please?", CHECK.say),
        ("Please check the status.", CHECK.say),
        ("The border is far.", ""),
        ("How tall are you?", GOOD.say),
        ("Hello.", ""),
        ("", ""),
    ],
)
def test_the_first_that_fits_is_taken(said: str, say: str) -> None:
    """By whole words, whatever their case; without words of its own it fits questions."""
    assert opening_for(ALL, prompt(said)) == say


def test_no_answer_begins_like_the_one_before() -> None:
    """The next that fits is taken, and after that the first again."""
    order = "Where is my order?"
    assert opening_for(ALL, prompt(order, f"{CHECK.say} It left.", order)) == LOOK.say
    assert opening_for((CHECK,), prompt(order, f"{CHECK.say} It left.", order)) == ""
    assert opening_for((CHECK,), prompt(order, f"{CHECK.say} It left.", "Yes.", "Fine.", order)) == CHECK.say


@given(st.lists(st.text(max_size=30), max_size=5), st.lists(st.sampled_from(ALL), max_size=3))
def test_only_what_is_configured_is_said_and_only_to_a_caller(said: list[str], openings: list[Opening]) -> None:
    """Whatever the conversation holds; an answer to nobody's words has none."""
    assert opening_for(openings, prompt(*said)) in {"", *(opening.say for opening in openings)}
    assert opening_for(openings, (*prompt(*said), ChatMessage("assistant", "Well?"))) == ""


def test_an_opening_has_words() -> None:
    """An empty one would be a silent segment."""
    with pytest.raises(ValidationError):
        ConversationSettings(openings=({"say": " "},))
