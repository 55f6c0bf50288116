"""Snapshots of a running session, and how another host goes on with one.

A snapshot is made between two events of the session, so it is consistent. It contains no audio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.replying.requests import ReplyRequest
from actors.survival.session_record import SessionOrigin, SessionRecord
from rejoinder.core.survival.resumption import Resumption
from rejoinder.core.survival.snapshot import SessionSnapshot
from rejoinder.core.turns.state import AgentState, CallerState
from rejoinder.core.wire import server

if TYPE_CHECKING:
    from actors.session import Session

MOVE_AFTER_S = 0.2
"""Seconds of silence after a turn until the client is asked to move. The journal has the whole turn by then."""


def snapshot_of(session: Session, origin: SessionOrigin) -> SessionSnapshot:
    """Return a snapshot of a session that came from `origin`."""
    replies = session.replies
    return SessionSnapshot(
        session.context.id.removeprefix("sess_"),
        generation=origin.generation,
        config=session.config,
        items=tuple(session.conversation),
        started_at=origin.started_at,
        owner=origin.owner,
        summary=replies.summaries.newest,
        pauses=session.state.pauses,
        caller_dbfs=session.audio_input.caller_dbfs,
        greeted=session.greeted,
        spoken=replies.recent.spoken,
        reply=replies.last_reply(),
    )


def restore(session: Session, snapshot: SessionSnapshot, resumption: Resumption) -> None:
    """Give a new session the state of a snapshot. `resumption` has the items as the caller has heard them."""
    for item in resumption.items:
        session.conversation.append(item)
    session.state = replace(session.state, pauses=snapshot.pauses)
    session.replies.summaries.newest = snapshot.summary
    if snapshot.spoken:
        session.replies.recent.voiced()
    if snapshot.caller_dbfs is not None:
        session.audio_input.caller_heard(snapshot.caller_dbfs)


def go_on(session: Session, resumption: Resumption) -> None:
    """Tell the client what is known of its conversation, and say what is still to be said."""
    known, continues = resumption.known, resumption.continues_item_id
    heard = known.heard if known and continues else None
    session.emit(
        server.resumed(resumption.items, resumption.audio_after_item_id, resumption.kind, continues, heard=heard)
    )
    if resumption.kind:
        fields = resumption.request
        request = session.replies.default_request() if fields is None else ReplyRequest.from_json(fields)
        session.request_reply(replace(request, known=resumption.known))


class MoveRequest:
    """Asks the client of a session to move to another host, at the next boundary between two turns."""

    def __init__(self, session: Session, record: SessionRecord, later: Callable[[float, Callable[[], None]], object]):
        """Create a request that is not made yet. `later` calls a function after some seconds."""
        self._session = session
        self._record = record
        self._later = later
        self._reason = ""
        self._waiting = False

    def ask(self, reason: str) -> None:
        """Ask the client as soon as nobody speaks. `reason` is a word for the client. Further calls do nothing."""
        if not self._reason:
            self._reason = reason
            self.stepped()

    def stepped(self) -> None:
        """Check whether the conversation is at a boundary. Call this after every step of the turn machine."""
        if self._reason and not self._record.moving and not self._waiting and self._at_boundary:
            self._waiting = True
            self._later(MOVE_AFTER_S, self._send)

    @property
    def _at_boundary(self) -> bool:
        state = self._session.state
        return state.caller is CallerState.QUIET and state.agent is AgentState.IDLE

    def _send(self) -> None:
        self._waiting = False
        if self._at_boundary and not self._record.taken.is_set():
            self._record.moving = True
            self._session.context.services.metrics.survival("asked_to_move")
            self._session.emit(server.move(self._reason))
