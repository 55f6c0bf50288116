"""Turn generated tokens into text deltas: send the first at once and coalesce the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from actors.stages.ports import LlmUsage, TokenDelta


class DeltaWriter:
    """Collector of one generation's tokens. It emits deltas from the thread that calls `write`.

    A delta is sent when `coalesce_s` seconds have passed since the last one. This is checked at each token, so there is
    no timer: text waits for `coalesce_s` or for the next token, whichever is later.

    Attributes:
        tokens: Number of tokens written so far.
    """

    def __init__(self, emit: Callable[[TokenDelta], None], coalesce_s: float) -> None:
        """Create a writer that passes each delta to `emit`, with at least `coalesce_s` seconds between two deltas."""
        self._emit = emit
        self._coalesce_s = coalesce_s
        self._stopped = threading.Event()
        self._due_at = 0.0
        self._text = ""
        self._waiting = 0
        self.tokens = 0

    @property
    def stopped(self) -> bool:
        """True after `stop`. The engine's callback checks it at each token."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Request that the generation ends at its next token. Any thread may call this."""
        self._stopped.set()

    def write(self, text: str, tokens: int = 1) -> None:
        """Add the text of `tokens` tokens. The text may be empty, while a character is incomplete."""
        self.tokens += tokens
        self._waiting += tokens
        self._text += text
        now = time.monotonic()
        if self._text and now >= self._due_at:
            self._due_at = now + self._coalesce_s
            self._emit(TokenDelta(self._text, self._waiting))
            self._text, self._waiting = "", 0

    def last(self, finish: Literal["stop", "length"], usage: LlmUsage) -> TokenDelta:
        """Return the final delta: the text not sent yet, why the answer ended, and the token usage.

        Call this after the generation has ended.
        """
        return TokenDelta(self._text, self._waiting, finish, usage)
