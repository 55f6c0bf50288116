"""The conversation as the language model reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the conversation as the model reads it."""

    role: Role
    content: str
