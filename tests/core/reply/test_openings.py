"""Tests of which configured opening, a phrase that is spoken before the answer is known, begins a reply."""

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
    """Return a prompt in which caller and assistant alternately said these texts, the caller the last one."""
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
def test_the_first_matching_opening_is_used(said: str, say: str) -> None:
    """The used opening is the first one with a `when` phrase in the caller's text, as whole words and in any case.

    An opening without `when` matches any question. A text without a phrase that is not a question gets "".
    """
    assert opening_for(ALL, prompt(said)) == say


def test_two_answers_in_a_row_start_differently() -> None:
    """The opening that began the previous answer is not used for this one, and may be used for a later one."""
    order = "Where is my order?"
    assert opening_for(ALL, prompt(order, f"{CHECK.say} It left.", order)) == LOOK.say
    assert opening_for((CHECK,), prompt(order, f"{CHECK.say} It left.", order)) == ""
    assert opening_for((CHECK,), prompt(order, f"{CHECK.say} It left.", "Yes.", "Fine.", order)) == CHECK.say


@given(st.lists(st.text(max_size=30), max_size=5), st.lists(st.sampled_from(ALL), max_size=3))
def test_only_configured_openings_are_used(said: list[str], openings: list[Opening]) -> None:
    """The result is a configured opening or "". A prompt that does not end with the caller's words gets none."""
    assert opening_for(openings, prompt(*said)) in {"", *(opening.say for opening in openings)}
    assert opening_for(openings, (*prompt(*said), ChatMessage("assistant", "Well?"))) == ""


def test_an_opening_has_words() -> None:
    """An opening without words is rejected, because it would be a silent segment."""
    with pytest.raises(ValidationError):
        ConversationSettings(openings=({"say": " "},))
