"""Which slot of llama.cpp holds which conversation."""

from __future__ import annotations

from itertools import count


class SlotTable:
    """Gives each conversation a slot of its own, as long as there are enough.

    llama.cpp by itself chooses the idle slot whose last prompt resembles the new one most. Many conversations begin
    with the same instructions, so a new one would overwrite the KV cache of another that is still needed.
    """

    def __init__(self, slots: int) -> None:
        """Create a table of `slots` free slots."""
        self._free = list(reversed(range(slots)))
        # The slot of each conversation. The one that was used last is at the end.
        self._held: dict[str, int] = {}
        self._nameless = count()

    def take(self, session: str) -> tuple[int, bool]:
        """Return the slot of a conversation, and True if the conversation did not have it before.

        A new conversation gets a free slot, or else the slot that was used longest ago.

        Args:
            session: Id of the conversation. A request with an empty id counts as a conversation of its own.
        """
        session = session or f"request {next(self._nameless)}"
        slot = self._held.pop(session, None)
        new = slot is None
        if slot is None:
            slot = self._free.pop() if self._free else self._held.pop(next(iter(self._held)))
        self._held[session] = slot
        return slot, new
