"""One conversation over any transport: what the WebSocket and WebRTC have in common."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from actors.host import Host
from actors.session import Session
from actors.stages.ports import AudioOutput
from actors.survival.session_record import SessionOrigin
from rejoinder.core.errors import CallerError
from rejoinder.core.wire import server
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.session import SessionConfig

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

CLOSE_GOING_AWAY = 1001
CLOSE_INTERNAL_ERROR = 1011
CLOSE_TRY_LATER = 1013
CLOSE_RESUMED_ELSEWHERE = 4409


@dataclass(frozen=True, slots=True)
class End:
    """How a conversation ended.

    Attributes:
        code: Code to close the connection with, as of a WebSocket. None if the client has closed it.
        reason: Reason in words.
    """

    code: int | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CallStart:
    """What a conversation begins with. Make it with `opening_of`.

    Attributes:
        key: Makes the session's ids unique.
        config: The configuration with which the session begins.
        max_s: Longest duration in seconds.
        tenant: Name under which the answer cache keeps this client's answers, derived from the API key.
        owner: Digest of the client's API key; "" if the host has no keys.
        origin: What the session goes on with; None for a new session.
    """

    key: str
    config: SessionConfig
    max_s: float
    tenant: str
    owner: str
    origin: SessionOrigin | None


def opening_of(
    host: Host,
    config: SessionConfig,
    *,
    tenant: str = "",
    owner: str = "",
    origin: SessionOrigin | None = None,
    key: str = "",
) -> CallStart:
    """Return what a conversation on a host begins with. The configuration and the key of `origin` replace the others.

    `key` makes the session's ids unique among all sessions; "" for a random one.
    """
    key, max_s = key or secrets.token_hex(6), host.services.settings.host.session_max_s
    if origin and origin.snapshot and host.keeper:
        config, key, max_s = origin.snapshot.config, origin.snapshot.key, host.keeper.left_s(origin)
    return CallStart(key, config, max_s, tenant=tenant, owner=owner, origin=origin)


class Transport(Protocol):
    """Connection that carries the events and the audio of one conversation."""

    @property
    def output(self) -> AudioOutput | None:
        """What plays the audio of replies; None if the client gets it in events and plays it itself."""
        ...

    def send(self, event: Json) -> None:
        """Send a server event. It must not block."""
        ...

    def carry(self, session: Session) -> Sequence[Coroutine[Any, Any, End]]:
        """Return the coroutines that carry the session. The conversation ends when one of them returns."""
        ...


async def converse(transport: Transport, host: Host, opening: CallStart) -> End:
    """Run a conversation until its client, its host or its time ends it, and return how it ended.

    The caller must have reserved a place on the host (`Host.seat`). Cancelling ends the session and all its engine
    calls.
    """
    try:
        async with host.converse(
            opening.key,
            transport.send,
            opening.config,
            opening.tenant,
            owner=opening.owner,
            origin=opening.origin,
            output=transport.output,
        ) as session:
            return await first_of(
                *transport.carry(session), _expire(session, opening.max_s), _resumed_elsewhere(session)
            )
    except Exception:  # catch everything here: a bug ends this call and no other
        logger.exception("session failed")
        host.services.metrics.error("internal", "session")
        return End(CLOSE_INTERNAL_ERROR, "internal error")


async def _expire(session: Session, max_s: float) -> End:
    await asyncio.sleep(max_s)
    fault = CallerError(f"The session reached its limit of {max_s:g} s.", "Open a new one.")
    event = server.error(fault, None)
    event["error"]["code"] = "session_expired"
    session.emit(event)
    if session.record:
        session.record.ended = True
    await asyncio.sleep(0)
    return End(CLOSE_GOING_AWAY, "session expired")


async def _resumed_elsewhere(session: Session) -> End:
    """Return when another connection has resumed the session."""
    if session.record is None:
        await asyncio.Event().wait()
    else:
        await session.record.taken.wait()
    message = "Another connection has resumed this session."
    session.emit(server.error(CallerError(message, code="session_resumed_elsewhere"), None))
    await asyncio.sleep(0)
    return End(CLOSE_RESUMED_ELSEWHERE, message)


async def first_of(*works: Coroutine[Any, Any, Result]) -> Result:
    """Run coroutines until one ends, cancel the others, and return its result or raise its exception."""
    tasks = {asyncio.ensure_future(work) for work in works}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done.pop().result()
