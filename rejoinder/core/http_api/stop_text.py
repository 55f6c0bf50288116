"""Stop sequences: the answer of a chat completion ends before the first of them."""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Passes streamed text on until a stop sequence occurs. Only text that may begin one is held back.

    Attributes:
        stopped: True if a stop sequence has occurred. No text is passed on after that.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Create a finder of these sequences, none of which is empty."""
        self.stopped = False
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> str:
        """Add the next piece of text, and return the text that is certainly before a stop sequence."""
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._held[: min(found)]
        keep = max((self._begun(stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """End the text, and return what was held back."""
        return "" if self.stopped else self._held

    def _begun(self, stop: str) -> int:
        """Return how many characters at the end of the held text are the beginning of a stop sequence."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)
