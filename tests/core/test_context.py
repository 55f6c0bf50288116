"""The prompt window: what the model reads of a conversation."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.context import Message, window

messages = st.lists(
    st.builds(Message, st.sampled_from(["user", "assistant"]), st.sampled_from(["", " ", "hello", "go on"])),
    max_size=30,
)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def test_keeps_the_instructions_and_the_last_turns() -> None:
    """The system message comes first; a turn is a user message and what follows it."""
    turns = [user("a"), assistant("A"), user("b"), assistant("B"), user("c")]
    assert window("Be brief.", turns, 2) == (Message("system", "Be brief."), user("b"), assistant("B"), user("c"))


def test_keeps_consecutive_user_messages_apart() -> None:
    """Two user messages in a row are two turns, in order, unmerged."""
    assert window("", [user("a"), user("b"), user("c")], 2) == (user("b"), user("c"))


def test_drops_replies_nobody_heard() -> None:
    """An assistant message without a word in it never reaches the model."""
    assert window("", [user("a"), assistant(" \n"), user("b")], 4) == (user("a"), user("b"))


def test_keeps_the_question_being_asked() -> None:
    """With no turns to keep the newest question is still there."""
    assert window("", [user("a"), assistant("A"), user("b")], 0) == (user("b"),)


def test_keeps_a_greeting_until_the_window_slides() -> None:
    """What the agent said before the first user message leaves together with the first turn."""
    greeting = assistant("Hello.")
    assert window("", [greeting, user("a")], 1) == (greeting, user("a"))
    assert window("", [greeting, user("a"), user("b")], 1) == (user("b"),)


@given(messages, st.integers(0, 6))
def test_never_holds_more_turns_than_asked(turns: list[Message], keep: int) -> None:
    """The prompt is bounded in turns and is a suffix of what was said."""
    prompt = window("", turns, keep)
    said = [turn for turn in turns if turn.role == "user" or turn.content.strip()]
    assert sum(message.role == "user" for message in prompt) <= max(keep, 1)
    assert list(prompt) == said[len(said) - len(prompt) :]


@given(messages, st.integers(1, 6))
def test_each_prompt_begins_with_the_one_before(turns: list[Message], keep: int) -> None:
    """Until the window slides, a longer conversation only appends, so that a prefix cache hits."""
    prompts = [window("Be brief.", turns[:count], keep) for count in range(len(turns) + 1)]
    for count, (before, after) in enumerate(pairwise(prompts), start=1):
        if sum(message.role == "user" for message in turns[:count]) <= keep:
            assert after[: len(before)] == before
