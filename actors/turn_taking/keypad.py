"""The telephone's keypad: keys that the caller presses become a turn of the conversation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from actors.stages.session_context import SessionContext
from rejoinder.core.wire import server
from rejoinder.core.wire.items import Item

LAST_KEY = "#"
MAX_KEYS = 64
"""Keys after which an entry is complete."""
ENTRY_BYTES = 700
"""Upper bound of the bytes that an entry takes in memory as an item."""


class Keypad:
    """The keys of one session.

    Each key is reported to the client. The keys become a text item of the caller when they end: with #, after
    `telephony.keypad_pause_ms` without a key, or after MAX_KEYS. The first key ends the reply that is being spoken, and
    the item is answered, as if the caller had spoken. While the caller speaks, only the item is added: the reply to the
    speech answers both.
    """

    def __init__(self, context: SessionContext, interrupt: Callable[[], object], entered: Callable[[], None]) -> None:
        """Create a keypad.

        Args:
            context: Conversation, wire and settings of the session.
            interrupt: Ends the reply that is being spoken, if there is one.
            entered: Called when the keys were added to the conversation.
        """
        self._context = context
        self._interrupt = interrupt
        self._entered = entered
        self._pause_s = context.services.settings.telephony.keypad_pause_ms / 1000
        self._keys = ""
        self._timer: asyncio.TimerHandle | None = None

    def press(self, key: str) -> None:
        """Handle a key: 0 to 9, *, # or A to D."""
        self._context.emit(server.dtmf_received(key, int(time.time())))
        if not self._keys:
            self._interrupt()
        self._keys += key
        self.close()
        if key == LAST_KEY or len(self._keys) == MAX_KEYS:
            self._enter()
        else:
            self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._enter)

    def close(self) -> None:
        """Stop the timer of the pause, because the session ends or a further key was pressed."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _enter(self) -> None:
        keys, self._keys = self._keys, ""
        text = f"(The caller pressed the keys {' '.join(keys)}.)"
        item = Item(self._context.stamp("item"), text=text)
        before = self._context.conversation.append(item)
        self._context.emit(server.item_event("added", item, before))
        self._context.emit(server.item_event("done", item, before))
        self._entered()
