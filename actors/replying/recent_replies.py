"""The replies that a client may still speak of."""

from __future__ import annotations

from collections import OrderedDict

from actors.replying.reply import Reply

# Cut replies whose heard text a client may still ask to correct by conversation.item.truncate.
REMEMBERED = 16


class RecentReplies:
    """The newest REMEMBERED of one session, by their items' ids."""

    def __init__(self) -> None:
        self._replies: OrderedDict[str, Reply] = OrderedDict()
        self._spoken = False

    def add(self, reply: Reply) -> None:
        """Its item may be named from now on."""
        self._replies[reply.plan.events.item_id] = reply
        while len(self._replies) > REMEMBERED:
            _, oldest = self._replies.popitem(last=False)
            self._spoken = self._spoken or oldest.audio_ms > 0

    @property
    def spoken(self) -> bool:
        """Whether the client was ever sent our voice."""
        return self._spoken or any(reply.audio_ms for reply in self._replies.values())

    def heard(self, item_id: str, at_s: float) -> tuple[str, int] | None:
        """What was heard of an assistant item by `at_s`, and its audio's length in ms; None if not remembered."""
        return (reply.heard_text(at_s), reply.audio_ms) if (reply := self._replies.get(item_id)) else None

    def flushed(self, item_id: str, at_s: float) -> None:
        """The client stopped playing an assistant item at `at_s`; if it is paused, it goes on from there."""
        if reply := self._replies.get(item_id):
            reply.flushed(at_s)
