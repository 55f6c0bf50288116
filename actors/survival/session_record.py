"""The record of one running session: notices changes, and makes the snapshots that the journal gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from rejoinder.core.survival.encoding import SnapshotEncoder
from rejoinder.core.survival.journal_table import SnapshotPut
from rejoinder.core.survival.resumption import Resumption
from rejoinder.core.survival.snapshot import SessionSnapshot
from rejoinder.core.wire.fields import Json

CHANGES = frozenset(
    {
        "session.created",
        "session.updated",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.deleted",
        "conversation.item.truncated",
        "response.created",
        "response.output_audio_transcript.delta",
        "response.done",
    }
)
"""Events to the client after which the conversation differs from its last snapshot."""


@dataclass(frozen=True, slots=True)
class SessionOrigin:
    """Where a session comes from.

    Attributes:
        owner: Digest of the API key that opened it; "" if the host has no keys.
        started_at: Unix time in seconds at which it began.
        generation: Its generation; 0 for a new session.
        snapshot: The snapshot with which it goes on; None for a new session.
        resumption: What goes on; None for a new session.
    """

    owner: str
    started_at: float
    generation: int = 0
    snapshot: SessionSnapshot | None = None
    resumption: Resumption | None = None


class SessionRecord:
    """Record of one session. Its session sets `capture` and `speaking` when it runs.

    Attributes:
        key: Key of the session.
        origin: Where the session comes from.
        token: Resume token of the session; "" if there is no journal.
        expires_at: Unix time in seconds at which the token expires.
        capture: Returns a snapshot of the session as it is now.
        speaking: Returns a value that changes as a reply proceeds; None while no reply is spoken.
        ended: True if the client has ended the session, so that it needs no snapshot any more.
        moving: True if the client was asked to move: then the end of its connection does not end the session.
        not_before: Time of the host's clock before which no further snapshot is sent, because the last one was large.
    """

    capture: Callable[[], SessionSnapshot]
    speaking: Callable[[], object]

    def __init__(
        self, key: str, origin: SessionOrigin, token: str, expires_at: int, *, wake: Callable[[], None]
    ) -> None:
        """Create the record. `wake` is called when the session differs from its last snapshot."""
        self.key = key
        self.origin = origin
        self.token = token
        self.expires_at = expires_at
        self.ended = False
        self.moving = False
        self.not_before = 0.0
        self.taken = asyncio.Event()
        self._wake = wake
        self._dirty = False
        self._progress: object = None
        self._sequence = 0
        self._encoder = SnapshotEncoder()

    def changed(self) -> None:
        """Note that the session differs from its last snapshot."""
        self._dirty = True
        self._wake()

    def watching(self, send: Callable[[Json], None]) -> Callable[[Json], None]:
        """Return a function that passes each server event to `send`.

        If the event reports a change of the conversation or its settings, the function also calls `changed`.
        """

        def send_noting(event: Json) -> None:
            send(event)
            if event["type"] in CHANGES:
                self.changed()

        return send_noting

    def due(self, now: float) -> bool:
        """Return True if a snapshot is to be sent at time `now` of the host's clock."""
        if self.taken.is_set() or now < self.not_before:
            return False
        return self._dirty or self.speaking() != self._progress

    def next_put(self) -> SnapshotPut:
        """Return the snapshot of the session as it is now, encoded."""
        self._dirty, self._progress = False, self.speaking()
        self._sequence += 1
        data = self._encoder.encode(self.capture())
        return SnapshotPut(self.key, self.origin.generation, self._sequence, data)
