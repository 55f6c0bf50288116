"""The prompt: which part of the conversation the language model gets.

A prompt is the instructions, followed by the last turns word for word. It contains nothing else, such as a clock or a
session id. While the conversation fits into the window, each prompt therefore starts with the previous one, byte for
byte. The engine's prefix cache (KV reuse) then computes only what is new. Later, only the instructions are a shared
prefix. Turns are dropped several at a time, so that this happens rarely.

The dropped turns can be summarized. The summary is made in the background, before the turn at which the window slides.
It is placed after the instructions when the window slides, so it changes only when the window does. If the summary is
late, the turns that it will cover stay in the prompt until the next slide. No reply waits for a summary.

A turn starts at every user message and includes the messages that follow it. Two user messages in a row are two turns.
They occur if the caller interrupts the answer before a word of it was played. If they counted as one turn, a
conversation whose replies always fail would be one turn, and the prompt would grow without limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rejoinder.core.reply.tools.calls import ToolCall

Role = Literal["system", "user", "assistant", "tool"]
"""Speaker of a message. A "tool" message is the result of a tool call."""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of the conversation, as the language model gets it.

    Attributes:
        role: The speaker.
        content: The text; "" for an assistant message that only calls tools.
        calls: The tools that an assistant message calls. The messages after it have their results.
        call_id: For the role "tool": the id of the call whose result this is.
    """

    role: Role
    content: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""

    @property
    def length(self) -> int:
        """Number of characters, arguments of calls included."""
        return len(self.content) + sum(len(call.name) + len(call.arguments) for call in self.calls)

    def plain(self) -> list[Any]:
        """Return the message as JSON values, for a snapshot of the session."""
        calls = [[call.name, call.arguments, call.call_id] for call in self.calls]
        return [self.role, self.content, calls, self.call_id]

    @classmethod
    def from_plain(cls, values: Sequence[Any]) -> ChatMessage:
        """Return the message that `plain` has encoded."""
        role, content, calls, call_id = values
        return cls(role, content, tuple(ToolCall(*call) for call in calls), call_id)


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """Summary of the beginning of a conversation.

    Attributes:
        text: The summary. Empty for no summary.
        covers: The messages that it summarizes.
    """

    text: str
    covers: tuple[ChatMessage, ...]

    def of(self, messages: Sequence[ChatMessage]) -> bool:
        """Return True if the messages start with the messages that this summary covers.

        Return False if a client has deleted or changed a covered message since the summary was made.
        """
        return tuple(messages[: len(self.covers)]) == self.covers


NOTHING = ConversationSummary("", ())


@dataclass(frozen=True, slots=True)
class PromptWindow:
    """Sliding window over the turns of a conversation.

    Attributes:
        keep_turns: Minimum number of turns in the prompt.
        drop_turns: Number of turns that are dropped at once when the window slides.
        summarized: Whether a summary replaces the dropped turns.
    """

    keep_turns: int
    drop_turns: int = 1
    summarized: bool = False

    def prompt(
        self, instructions: str, turns: Sequence[ChatMessage], summary: ConversationSummary = NOTHING
    ) -> tuple[ChatMessage, ...]:
        """Return the prompt of a conversation whose newest turn is the question.

        Args:
            instructions: The system prompt. It is left out if blank.
            turns: All messages of the conversation.
            summary: The newest summary, if there is one. It is ignored if it does not match the conversation.
        """
        if not self.summarized:
            return window(instructions, turns, self.keep_turns, self.drop_turns)
        messages = _with_words(turns)
        valid = summary if summary.of(messages) else NOTHING
        dropped = _dropped(messages, self.keep_turns, self.drop_turns)
        overdue = _dropped(messages, self.keep_turns + self.drop_turns, self.drop_turns)
        first = max(min(dropped, len(valid.covers)), overdue)
        earlier = (ChatMessage("system", f"Earlier in this conversation: {valid.text}"),) if valid.text else ()
        return _system(instructions) + earlier + tuple(messages[first:])

    def leaving(self, turns: Sequence[ChatMessage], summary: ConversationSummary = NOTHING) -> tuple[ChatMessage, ...]:
        """Return the messages that will not fit into the window at the caller's next turn.

        A new summary must cover them. Return an empty tuple if `summary` already covers them, or if summaries are off.
        """
        if not self.summarized:
            return ()
        messages = _with_words(turns)
        dropped = _dropped([*messages, ChatMessage("user", "?")], self.keep_turns, self.drop_turns)
        return tuple(messages[:dropped]) if dropped > (len(summary.covers) if summary.of(messages) else 0) else ()


def request_summary(
    leaving: Sequence[ChatMessage], summary: ConversationSummary, words: int
) -> tuple[ChatMessage, ...]:
    """Return the prompt with which a language model summarizes the messages `leaving`.

    Args:
        leaving: The messages to summarize.
        summary: The previous summary. If it covers the first messages of `leaving`, its text replaces them.
        words: Maximum number of words of the summary.
    """
    previous = summary if summary.text and summary.of(leaving) else NOTHING
    lines = [f"Before: {previous.text}"] if previous.text else []
    lines += [_line(message) for message in leaving[len(previous.covers) :]]
    task = (
        f"Summarize this conversation in at most {words} words for whoever goes on with it: who the user is, what they "
        "want, what was agreed. Only facts that were said."
    )
    return ChatMessage("system", task), ChatMessage("user", "\n".join(lines))


def _line(message: ChatMessage) -> str:
    """Return a message as one line of the text that is summarized."""
    calls = "".join(f" [calls {call.name} with {call.arguments}]" for call in message.calls)
    return f"{message.role}: {message.content}{calls}"


def window(
    instructions: str, turns: Sequence[ChatMessage], keep_turns: int, drop_turns: int = 1
) -> tuple[ChatMessage, ...]:
    """Return the instructions as a system message, followed by the newest turns of the conversation.

    There are `keep_turns` turns, or up to `drop_turns` - 1 more, because `drop_turns` turns are dropped at once. If one
    were dropped at every turn, every prompt would start differently, and the prefix cache could not be used. The newest
    turn is the question, so it is kept even if `keep_turns` is 0.
    Assistant messages without words (replies that were cancelled before a word was heard) are left out. Messages before
    the first user message, such as a greeting, are dropped together with the first turn.
    """
    messages = _with_words(turns)
    return _system(instructions) + tuple(messages[_dropped(messages, keep_turns, drop_turns) :])


def _system(instructions: str) -> tuple[ChatMessage, ...]:
    return (ChatMessage("system", instructions),) if instructions.strip() else ()


def _with_words(turns: Sequence[ChatMessage]) -> list[ChatMessage]:
    return [message for message in turns if message.role != "assistant" or message.calls or message.content.strip()]


def _dropped(messages: Sequence[ChatMessage], keep_turns: int, drop_turns: int) -> int:
    """Return how many messages at the beginning of a conversation do not fit into a window of `keep_turns` turns.

    Turns are dropped in multiples of `drop_turns`.
    """
    starts = [index for index, message in enumerate(messages) if message.role == "user"]
    turns = max(0, len(starts) - max(keep_turns, 1)) // drop_turns * drop_turns
    return starts[turns] if turns else 0
