"""The conversation as the language model reads it.

A prompt is the instructions followed by the last few turns, word for word. Nothing else goes in: no clock, no
session id, no summary that is rewritten. So while a conversation is shorter than the window each prompt begins
with the one before it, byte for byte, and a serving engine's prefix cache (KV reuse) pays only for what is new;
after that the instructions remain the shared prefix, and turns leave several at a time, so that this happens seldom.

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
class Message:
    """One entry of the conversation as the model reads it."""

    role: Role
    content: str


def window(instructions: str, turns: Sequence[Message], keep_turns: int, drop_turns: int = 1) -> tuple[Message, ...]:
    """The prompt: instructions as system message (none if blank), then the last `keep_turns` turns, or a few more.

    Turns leave `drop_turns` at a time: a window that slides at every turn has a new beginning at every turn, and no
    state of the prompt before is of use. The newest turn is the question being asked, so it is kept even if
    `keep_turns` is 0. Assistant messages that say nothing (a reply cut before a word was heard) are left out. What
    precedes the first user message, such as a greeting, is kept until the first turn leaves the window.
    """
    system = (Message("system", instructions),) if instructions.strip() else ()
    said = [message for message in turns if message.role != "assistant" or message.content.strip()]
    starts = [index for index, message in enumerate(said) if message.role == "user"]
    gone = max(0, len(starts) - max(keep_turns, 1)) // drop_turns * drop_turns
    first = starts[gone] if gone else 0
    return system + tuple(said[first:])
