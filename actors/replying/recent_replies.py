"""The recent replies of a session, which the client may still refer to."""

from __future__ import annotations

from collections import OrderedDict

from actors.replying.reply import Reply

# Replies that a conversation.item.truncate may still name.
REMEMBERED = 16


class RecentReplies:
    """The newest REMEMBERED replies of one session, by the ids of their items."""

    def __init__(self) -> None:
        self._replies: OrderedDict[str, Reply] = OrderedDict()
        self._spoken = False

    def add(self, reply: Reply) -> None:
        """Remember a reply, and forget the oldest beyond REMEMBERED."""
        self._replies[reply.plan.events.item_id] = reply
        while len(self._replies) > REMEMBERED:
            _, oldest = self._replies.popitem(last=False)
            self._spoken = self._spoken or oldest.audio_ms > 0

    @property
    def spoken(self) -> bool:
        """True once the client was sent any audio of a reply."""
        return self._spoken or any(reply.audio_ms for reply in self._replies.values())

    def heard(self, item_id: str, at_s: float) -> tuple[str, int] | None:
        """Return the text heard of an assistant item until `at_s`, and its audio's length in ms.

        None means that the item is not remembered.
        """
        return (reply.heard_text(at_s), reply.audio_ms) if (reply := self._replies.get(item_id)) else None

    def flushed(self, item_id: str, at_s: float) -> None:
        """Record that the client stopped playing an assistant item at `at_s`. A paused reply resumes from there."""
        if reply := self._replies.get(item_id):
            reply.flushed(at_s)
