"""The prompt window: what the model reads of a conversation."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.reply.prompt_window import (
    NOTHING,
    ChatMessage,
    ConversationSummary,
    PromptWindow,
    request_summary,
    window,
)

messages = st.lists(
    st.builds(ChatMessage, st.sampled_from(["user", "assistant"]), st.sampled_from(["", " ", "hello", "go on"])),
    max_size=30,
)


def user(text: str) -> ChatMessage:
    return ChatMessage("user", text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage("assistant", text)


def test_keeps_the_instructions_and_the_last_turns() -> None:
    """The system message comes first; a turn is a user message and what follows it."""
    turns = [user("a"), assistant("A"), user("b"), assistant("B"), user("c")]
    assert window("Be brief.", turns, 2) == (ChatMessage("system", "Be brief."), user("b"), assistant("B"), user("c"))


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
def test_never_holds_more_turns_than_asked(turns: list[ChatMessage], keep: int) -> None:
    """The prompt is bounded in turns and is a suffix of what was said."""
    prompt = window("", turns, keep)
    said = [turn for turn in turns if turn.role == "user" or turn.content.strip()]
    assert sum(message.role == "user" for message in prompt) <= max(keep, 1)
    assert list(prompt) == said[len(said) - len(prompt) :]


@given(messages, st.integers(1, 6))
def test_each_prompt_begins_with_the_one_before(turns: list[ChatMessage], keep: int) -> None:
    """Until the window slides, a longer conversation only appends, so that a prefix cache hits."""
    prompts = [window("Be brief.", turns[:count], keep) for count in range(len(turns) + 1)]
    for count, (before, after) in enumerate(pairwise(prompts), start=1):
        if sum(message.role == "user" for message in turns[:count]) <= keep:
            assert after[: len(before)] == before


# -- summaries ---------------------------------------------------------------------------------------------------------

SUMMARIZED = PromptWindow(keep_turns=2, drop_turns=2, summarized=True)


def talk(turns: int) -> list[ChatMessage]:
    """So many turns, the newest without an answer."""
    said = [message for at in range(turns) for message in (user(f"q{at}"), assistant(f"a{at}"))]
    return said[:-1]


def test_without_summaries_what_leaves_is_forgotten() -> None:
    """The window alone, and nothing to sum up."""
    plain = PromptWindow(2, 2)
    assert plain.prompt("Be brief.", talk(7)) == window("Be brief.", talk(7), 2, 2)
    assert plain.leaving(talk(7)) == ()


def test_a_summary_takes_the_place_of_what_left() -> None:
    """It stands behind the instructions, and the turns behind it follow word for word."""
    summary = ConversationSummary("They talked of a and b.", tuple(talk(5)[:4]))
    prompt = SUMMARIZED.prompt("Be brief.", talk(5), summary)
    assert prompt[0] == ChatMessage("system", "Be brief.")
    assert prompt[1].role == "system"
    assert summary.text in prompt[1].content
    assert list(prompt[2:]) == talk(5)[4:]


def test_until_it_is_there_the_turns_stay_for_one_slide() -> None:
    """Nothing is lost while a summary is late; if none ever comes the prompt stays bounded all the same."""
    assert SUMMARIZED.prompt("", talk(4)) == tuple(talk(4))
    assert SUMMARIZED.prompt("", talk(5)) == tuple(talk(5))
    late = SUMMARIZED.prompt("", talk(6))
    assert sum(message.role == "user" for message in late) <= 2 + 2 * 2 - 1


def test_what_the_next_turn_drops_is_asked_for_ahead() -> None:
    """Behind the third answer, of a window of two that drops two, the first two turns are due; once summed up, not."""
    assert SUMMARIZED.leaving([*talk(2), assistant("a1")]) == ()
    heard = [*talk(3), assistant("a2")]
    assert SUMMARIZED.leaving(heard) == tuple(heard[:4])
    assert SUMMARIZED.leaving(heard, ConversationSummary("Done.", tuple(heard[:4]))) == ()


def test_a_summary_of_what_was_changed_since_is_none() -> None:
    """A client deleted an item that it covers: it is neither shown nor built upon."""
    summary = ConversationSummary("They talked of a and b.", tuple(talk(5)[:4]))
    other = talk(5)[1:]
    assert SUMMARIZED.prompt("", other, summary) == SUMMARIZED.prompt("", other)
    asked = request_summary(tuple(other[:4]), summary, 50)
    assert summary.text not in asked[1].content


def test_a_summary_goes_on_from_the_one_before() -> None:
    """What it covered is not read again; the task names the words."""
    said = tuple(talk(9))
    asked = request_summary(said[:8], ConversationSummary("Before that, a.", said[:4]), 50)
    assert "50 words" in asked[0].content
    assert asked[1].content.splitlines() == [
        "Before: Before that, a.",
        "user: q2",
        "assistant: a2",
        "user: q3",
        "assistant: a3",
    ]


@given(messages, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_nothing_is_lost_and_the_prompt_stays_bounded(
    turns: list[ChatMessage], keep: int, drop: int, prepared: bool
) -> None:
    """With a summary prepared in time every message is either covered or in the prompt; without one at most
    `drop` more turns than the window has are kept.
    """
    wanted = PromptWindow(keep, drop, summarized=True)
    said = [turn for turn in turns if turn.role == "user" or turn.content.strip()]
    last = max((at for at, turn in enumerate(said) if turn.role == "user"), default=0)
    before = said[:last]
    leaving = wanted.leaving(before) if prepared else ()
    summary = ConversationSummary("Some.", leaving) if leaving else NOTHING
    prompt = [message for message in wanted.prompt("", said[: last + 1], summary) if message.role != "system"]
    assert sum(message.role == "user" for message in prompt) <= keep + 2 * drop
    assert prompt == said[: last + 1][len(said[: last + 1]) - len(prompt) :]
    if prepared and sum(message.role == "user" for message in said) <= keep + drop:
        assert len(prompt) + len(summary.covers) >= len(said[: last + 1])
