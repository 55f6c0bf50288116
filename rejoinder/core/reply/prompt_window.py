"""The conversation as the language model reads it.

A prompt is the instructions followed by the last few turns, word for word. Nothing else goes in: no clock, no
session id. So while a conversation is shorter than the window each prompt begins with the one before it, byte for
byte, and a serving engine's prefix cache (KV reuse) pays only for what is new; after that the instructions remain the
shared prefix, and turns leave several at a time, so that this happens seldom.

What leaves can be summarized. A summary is made beside the conversation, ahead of the turn at which the window would
slide, and takes its place behind the instructions when the window slides: it changes no more often than the window
does. While it is not there yet the turns that it is to cover stay, for one slide more: nothing waits for it, and
nothing is lost to it.

A turn begins at every user message and holds what follows it. Two user messages in a row (the caller was cut off
from the answer, or answered over it) are two turns: joining them would let a conversation whose replies fail grow
a prompt without bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One entry of the conversation as the model reads it."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """`text` says what was said in `covers`, the conversation's first messages."""

    text: str
    covers: tuple[ChatMessage, ...]

    def of(self, said: Sequence[ChatMessage]) -> bool:
        """Whether it is this conversation's: a client may have deleted or changed an item since."""
        return tuple(said[: len(self.covers)]) == self.covers


NOTHING = ConversationSummary("", ())


@dataclass(frozen=True, slots=True)
class PromptWindow:
    """At least `keep_turns` turns; they leave `drop_turns` at a time, and are summarized if `summarized`."""

    keep_turns: int
    drop_turns: int = 1
    summarized: bool = False

    def prompt(
        self, instructions: str, turns: Sequence[ChatMessage], summary: ConversationSummary = NOTHING
    ) -> tuple[ChatMessage, ...]:
        """The prompt of this conversation, whose newest turn is the question."""
        if not self.summarized:
            return window(instructions, turns, self.keep_turns, self.drop_turns)
        said = _spoken(turns)
        known = summary if summary.of(said) else NOTHING
        gone = _gone(said, self.keep_turns, self.drop_turns)
        overdue = _gone(said, self.keep_turns + self.drop_turns, self.drop_turns)
        first = max(min(gone, len(known.covers)), overdue)
        recalled = (ChatMessage("system", f"Earlier in this conversation: {known.text}"),) if known.text else ()
        return _system(instructions) + recalled + tuple(said[first:])

    def leaving(self, turns: Sequence[ChatMessage], summary: ConversationSummary = NOTHING) -> tuple[ChatMessage, ...]:
        """The messages that a summary must cover before the caller's next turn, if `summary` does not: else none."""
        if not self.summarized:
            return ()
        said = _spoken(turns)
        gone = _gone([*said, ChatMessage("user", "?")], self.keep_turns, self.drop_turns)
        return tuple(said[:gone]) if gone > (len(summary.covers) if summary.of(said) else 0) else ()


def request_summary(
    leaving: Sequence[ChatMessage], summary: ConversationSummary, words: int
) -> tuple[ChatMessage, ...]:
    """What a language model is asked to get the summary of `leaving`, from that of its beginning if there is one."""
    known = summary if summary.text and summary.of(leaving) else NOTHING
    lines = [f"Before: {known.text}"] if known.text else []
    lines += [f"{message.role}: {message.content}" for message in leaving[len(known.covers) :]]
    task = (
        f"Summarize this conversation in at most {words} words for whoever goes on with it: who the user is, what they "
        "want, what was agreed. Only facts that were said."
    )
    return ChatMessage("system", task), ChatMessage("user", "\n".join(lines))


def window(
    instructions: str, turns: Sequence[ChatMessage], keep_turns: int, drop_turns: int = 1
) -> tuple[ChatMessage, ...]:
    """The prompt: instructions as system message (none if blank), then the last `keep_turns` turns, or a few more.

    Turns leave `drop_turns` at a time: a window that slides at every turn has a new beginning at every turn, and no
    state of the prompt before is of use. The newest turn is the question being asked, so it is kept even if
    `keep_turns` is 0. Assistant messages that say nothing (a reply cut before a word was heard) are left out. What
    precedes the first user message, such as a greeting, is kept until the first turn leaves the window.
    """
    said = _spoken(turns)
    return _system(instructions) + tuple(said[_gone(said, keep_turns, drop_turns) :])


def _system(instructions: str) -> tuple[ChatMessage, ...]:
    return (ChatMessage("system", instructions),) if instructions.strip() else ()


def _spoken(turns: Sequence[ChatMessage]) -> list[ChatMessage]:
    return [message for message in turns if message.role != "assistant" or message.content.strip()]


def _gone(said: Sequence[ChatMessage], keep_turns: int, drop_turns: int) -> int:
    """How many messages have left the window."""
    starts = [index for index, message in enumerate(said) if message.role == "user"]
    gone = max(0, len(starts) - max(keep_turns, 1)) // drop_turns * drop_turns
    return starts[gone] if gone else 0
