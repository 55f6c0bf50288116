"""Tests of the prompt window: the part of a conversation that the language model gets."""

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
    """The prompt is the system message and the last `keep` turns. A turn is a user message and the answer after it."""
    turns = [user("a"), assistant("A"), user("b"), assistant("B"), user("c")]
    assert window("Be brief.", turns, 2) == (ChatMessage("system", "Be brief."), user("b"), assistant("B"), user("c"))


def test_keeps_consecutive_user_messages_apart() -> None:
    """Two user messages in a row are two turns, in order."""
    assert window("", [user("a"), user("b"), user("c")], 2) == (user("b"), user("c"))


def test_drops_replies_without_words() -> None:
    """An assistant message without words is left out."""
    assert window("", [user("a"), assistant(" \n"), user("b")], 4) == (user("a"), user("b"))


def test_keeps_the_question_being_asked() -> None:
    """With keep_turns=0 the newest question stays in the prompt."""
    assert window("", [user("a"), assistant("A"), user("b")], 0) == (user("b"),)


def test_keeps_a_greeting_until_the_window_slides() -> None:
    """A greeting before the first user message stays in the prompt until the first turn is dropped."""
    greeting = assistant("Hello.")
    assert window("", [greeting, user("a")], 1) == (greeting, user("a"))
    assert window("", [greeting, user("a"), user("b")], 1) == (user("b"),)


@given(messages, st.integers(0, 6))
def test_never_holds_more_turns_than_configured(turns: list[ChatMessage], keep: int) -> None:
    """The prompt is the last part of the conversation, without empty assistant messages.

    It has at most `keep` user messages. If `keep` is 0, it has at most one.
    """
    prompt = window("", turns, keep)
    spoken = [turn for turn in turns if turn.role == "user" or turn.content.strip()]
    assert sum(message.role == "user" for message in prompt) <= max(keep, 1)
    assert list(prompt) == spoken[len(spoken) - len(prompt) :]


@given(messages, st.integers(1, 6))
def test_each_prompt_begins_with_the_one_before(turns: list[ChatMessage], keep: int) -> None:
    """Until turns are dropped, each prompt begins with the previous one, so that the model can reuse its KV cache."""
    prompts = [window("Be brief.", turns[:count], keep) for count in range(len(turns) + 1)]
    for count, (before, after) in enumerate(pairwise(prompts), start=1):
        if sum(message.role == "user" for message in turns[:count]) <= keep:
            assert after[: len(before)] == before


# -- summaries of dropped turns ----------------------------------------------------------------------------------------

SUMMARIZED = PromptWindow(keep_turns=2, drop_turns=2, summarized=True)


def talk(turns: int) -> list[ChatMessage]:
    """Return a conversation of `turns` questions, all but the newest with an answer."""
    spoken = [message for at in range(turns) for message in (user(f"q{at}"), assistant(f"a{at}"))]
    return spoken[:-1]


def test_without_summaries_dropped_turns_are_lost() -> None:
    """Without summaries (the default), the prompt is the result of `window`, and `leaving` returns no messages."""
    plain = PromptWindow(2, 2)
    assert plain.prompt("Be brief.", talk(7)) == window("Be brief.", talk(7), 2, 2)
    assert plain.leaving(talk(7)) == ()


def test_a_summary_replaces_the_dropped_turns() -> None:
    """In the prompt, a summary of the dropped turns follows the instructions, and the other turns follow unchanged."""
    summary = ConversationSummary("They talked of a and b.", tuple(talk(5)[:4]))
    prompt = SUMMARIZED.prompt("Be brief.", talk(5), summary)
    assert prompt[0] == ChatMessage("system", "Be brief.")
    assert prompt[1].role == "system"
    assert summary.text in prompt[1].content
    assert list(prompt[2:]) == talk(5)[4:]


def test_without_a_summary_the_turns_stay_for_one_slide() -> None:
    """Turns to be dropped stay in the prompt while their summary is missing.

    The prompt has at most `keep_turns` + 2 `drop_turns` - 1 turns, here 5. Older turns are dropped without a summary.
    """
    assert SUMMARIZED.prompt("", talk(4)) == tuple(talk(4))
    assert SUMMARIZED.prompt("", talk(5)) == tuple(talk(5))
    late = SUMMARIZED.prompt("", talk(6))
    assert sum(message.role == "user" for message in late) <= 2 + 2 * 2 - 1


def test_a_summary_is_needed_before_the_window_slides() -> None:
    """`leaving` returns the messages that the next question will drop, or () if the summary covers them."""
    assert SUMMARIZED.leaving([*talk(2), assistant("a1")]) == ()
    heard = [*talk(3), assistant("a2")]
    assert SUMMARIZED.leaving(heard) == tuple(heard[:4])
    assert SUMMARIZED.leaving(heard, ConversationSummary("Done.", tuple(heard[:4]))) == ()


def test_a_summary_of_changed_messages_is_ignored() -> None:
    """If a client has changed the messages that a summary covers, the summary is not in the prompt and not extended."""
    summary = ConversationSummary("They talked of a and b.", tuple(talk(5)[:4]))
    other = talk(5)[1:]
    assert SUMMARIZED.prompt("", other, summary) == SUMMARIZED.prompt("", other)
    request = request_summary(tuple(other[:4]), summary, 50)
    assert summary.text not in request[1].content


def test_a_summary_extends_the_previous_one() -> None:
    """The request for a new summary states the maximum of words, the previous summary and the messages after it."""
    spoken = tuple(talk(9))
    request = request_summary(spoken[:8], ConversationSummary("Before that, a.", spoken[:4]), 50)
    assert "50 words" in request[0].content
    assert request[1].content.splitlines() == [
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
    """With a summary in time, every message is in the prompt or covered by the summary.

    With or without it, the prompt is the last part of the conversation and has at most `keep` + 2 `drop` user messages.
    """
    prompt_window = PromptWindow(keep, drop, summarized=True)
    spoken = [turn for turn in turns if turn.role == "user" or turn.content.strip()]
    last = max((at for at, turn in enumerate(spoken) if turn.role == "user"), default=0)
    before = spoken[:last]
    leaving = prompt_window.leaving(before) if prepared else ()
    summary = ConversationSummary("Some.", leaving) if leaving else NOTHING
    prompt = [message for message in prompt_window.prompt("", spoken[: last + 1], summary) if message.role != "system"]
    assert sum(message.role == "user" for message in prompt) <= keep + 2 * drop
    assert prompt == spoken[: last + 1][len(spoken[: last + 1]) - len(prompt) :]
    if prepared and sum(message.role == "user" for message in spoken) <= keep + drop:
        assert len(prompt) + len(summary.covers) >= len(spoken[: last + 1])
