"""From generated tokens to text deltas: the first at once, later ones coalesced; whole characters only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from actors.stages.ports import LlmUsage, TokenDelta


class DeltaWriter:
    """Collects one generation's tokens and emits deltas; `write` runs in the engine's thread.

    A delta leaves when `coalesce_s` have passed since the last one, checked at each token: no text waits longer than
    `coalesce_s` or one token, whichever is more, and no timer is needed.
    """

    def __init__(self, emit: Callable[[TokenDelta], None], coalesce_s: float) -> None:
        self._emit = emit
        self._coalesce_s = coalesce_s
        self._stopped = threading.Event()
        self._due_at = 0.0
        self._text = ""
        self._waiting = 0
        self.tokens = 0

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """End the generation at its next token; any thread may call it."""
        self._stopped.set()

    def write(self, text: str, tokens: int = 1) -> None:
        """Take the text of one token, or of several; empty while a character is incomplete."""
        self.tokens += tokens
        self._waiting += tokens
        self._text += text
        now = time.monotonic()
        if self._text and now >= self._due_at:
            self._due_at = now + self._coalesce_s
            self._emit(TokenDelta(self._text, self._waiting))
            self._text, self._waiting = "", 0

    def last(self, finish: Literal["stop", "length"], usage: LlmUsage) -> TokenDelta:
        """What is left, with the reason of the end; call it when the generation is over."""
        return TokenDelta(self._text, self._waiting, finish, usage)
