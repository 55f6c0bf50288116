"""The recent replies of a session, to which the client may still refer."""

from __future__ import annotations

from collections import OrderedDict

from actors.replying.reply import Reply

# Maximum number of replies that a conversation.item.truncate may still refer to.
REMEMBERED = 16


class RecentReplies:
    """The newest REMEMBERED (16) replies of one session, by the ids of their items."""

    def __init__(self) -> None:
        self._replies: OrderedDict[str, Reply] = OrderedDict()
        self._spoken = False

    def add(self, reply: Reply) -> None:
        """Remember a reply, and forget the oldest beyond REMEMBERED."""
        self._replies[reply.plan.events.item_id] = reply
        while len(self._replies) > REMEMBERED:
            _, oldest = self._replies.popitem(last=False)
            self._spoken = self._spoken or oldest.audio_ms > 0

    def voiced(self) -> None:
        """Record that audio was sent before, by the host that had the session."""
        self._spoken = True

    @property
    def spoken(self) -> bool:
        """True once any audio of a reply was sent to the client."""
        return self._spoken or any(reply.audio_ms for reply in self._replies.values())

    def heard(self, item_id: str, at_s: float) -> tuple[str, int] | None:
        """Return the part of an assistant item's text that the caller heard, and the length of its audio in ms.

        Args:
            item_id: The item of a reply.
            at_s: Position in its audio at which the client stopped, in seconds.

        Returns:
            None if the item is not among the recent replies.
        """
        return (reply.heard_text(at_s), reply.audio_ms) if (reply := self._replies.get(item_id)) else None

    def flushed(self, item_id: str, at_s: float) -> None:
        """Record that the client stopped playing an assistant item `at_s` seconds into its audio.

        A paused reply resumes from there.
        """
        if reply := self._replies.get(item_id):
            reply.flushed(at_s)
