"""Keeps the sessions of one host in the journal, and takes sessions of other hosts over.

Snapshots are sent in rounds. A round gathers the sessions that have changed and sends one message to each journal. So a
burst of changes costs one snapshot, and no session ever waits for a journal.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from actors.stages.ports import Metrics
from actors.stages.retry import contained
from actors.survival.session_record import SessionOrigin, SessionRecord
from actors.survival.snapshot_store import SnapshotStore
from rejoinder.core.errors import BackendError
from rejoinder.core.survival.encoding import UnreadableSnapshot, decode
from rejoinder.core.survival.journal_table import SnapshotPut
from rejoinder.core.survival.resume_token import ResumeToken, read_token, sign_token
from rejoinder.core.survival.resumption import HeardReport, resume
from rejoinder.core.survival.snapshot import SessionSnapshot, next_generation

logger = logging.getLogger(__name__)

GATHER_S = 0.005
"""Seconds for which a round gathers changes. What is lost if the host dies in between is little."""
ROUND_S = 0.04
"""Shortest time between the starts of two rounds."""
LOOK_S = 0.25
"""Longest time between two rounds: replies that are spoken proceed without an event."""
BYTES_PER_S = 1_000_000
"""Bytes of snapshots that one session may cause in a second. A long conversation is sent less often."""
ROUND_BYTES = 512_000
"""Bytes of snapshots after which a round ends. The other sessions wait for the next round, so that clients with long
conversations cannot keep the host busy: a host sends at most 13 MB a second.
"""
REFRESHES = 3
"""A session that does not change is sent this often within `keep_s`, so that the journals keep it."""
KEYS_AGAIN_S = 1.0
"""Shortest time in seconds between two exchanges of signing keys that wrong tokens cause."""
KEYS_EVERY_S = 30.0
"""Seconds between two exchanges of signing keys with the journals."""
CLAIM_S = 2.0
"""Seconds after which a claim that the journals do not answer has failed."""


class Cipher(Protocol):
    """Interface of the encryption of snapshots."""

    def seal(self, data: bytes, session: str) -> bytes:
        """Return the data encrypted for a session."""
        ...

    def open(self, data: bytes, session: str) -> bytes:
        """Return the data that `seal` has encrypted for this session. Raise ValueError if it was changed."""
        ...


class NoCipher:
    """`Cipher` that leaves the data as they are."""

    def seal(self, data: bytes, session: str) -> bytes:
        """Return `data`."""
        return data

    def open(self, data: bytes, session: str) -> bytes:
        """Return `data`."""
        return data


class SessionKeeper:
    """Saves the sessions of one host in the journal, so that another host can continue them if this one fails.

    The host runs `run` as a task for as long as it serves. Call all methods from the host's event loop.
    """

    def __init__(
        self,
        store: SnapshotStore,
        metrics: Metrics,
        clock: Callable[[], float],
        *,
        session_s: float,
        keep_s: float,
        signing_key: str = "",
        cipher: Cipher | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Create a keeper without sessions.

        Args:
            store: The journal.
            metrics: Receiver of measurements.
            clock: Returns the monotonic time, in seconds.
            session_s: Longest session in seconds.
            keep_s: Seconds for which the journal keeps a session that is not sent again.
            signing_key: Key that signs resume tokens. Empty: a random one, which the journals share.
            cipher: Encrypts snapshots; None for no encryption.
            wall_clock: Returns the Unix time, in seconds.
        """
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._wall_clock = wall_clock
        self._session_s = session_s
        self._refresh_s = keep_s / REFRESHES
        self._cipher: Cipher = cipher or NoCipher()
        self._own_key = signing_key or secrets.token_hex(32)
        self._configured = bool(signing_key)
        self._keys: tuple[str, ...] = (self._own_key,)
        self._records: dict[str, SessionRecord] = {}
        self._last: list[SnapshotPut] = []
        self._forgotten: list[tuple[str, int]] = []
        self._keys_at = -math.inf
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()

    @property
    def live(self) -> tuple[SessionRecord, ...]:
        """The records of the sessions of this host."""
        return tuple(self._records.values())

    # -- sessions of this host -----------------------------------------------------------------------------------------

    def record(self, key: str, origin: SessionOrigin | None = None, *, owner: str = "") -> SessionRecord:
        """Return the record of a session that is about to begin.

        Args:
            key: Key of the session.
            origin: Where a resumed session comes from; None for a new session.
            owner: Digest of the API key that opens a new session.
        """
        origin = origin or SessionOrigin(owner, self._wall_clock())
        token = ResumeToken(key, origin.owner, int(origin.started_at + self._session_s))
        signed = sign_token(token, self._own_key if self._configured else min(self._keys))
        return SessionRecord(key, origin, signed, token.expires_at, wake=self._wake.set)

    def left_s(self, origin: SessionOrigin) -> float:
        """Return the seconds until a session from `origin` reaches its longest time."""
        return max(0.0, origin.started_at + self._session_s - self._wall_clock())

    def attach(self, record: SessionRecord) -> None:
        """Keep a session from now on, until `detach`."""
        self._records[record.key] = record
        record.changed()

    def detach(self, record: SessionRecord) -> None:
        """Stop keeping a session. Its last snapshot is sent, or dropped if the client has ended the session."""
        if self._records.get(record.key) is record:
            del self._records[record.key]
        if record.taken.is_set():
            return
        if record.ended and not record.moving:
            self._forgotten.append((record.key, record.origin.generation))
        else:
            self._last.append(self._sealed(record.next_put()))
        # The client may connect to another host in a few milliseconds. So this snapshot waits for no other.
        self._urgent.set()
        self._wake.set()

    # -- taking sessions over ------------------------------------------------------------------------------------------

    async def token(self, text: str) -> ResumeToken | None:
        """Return the content of a resume token; None if it is wrong, changed or expired.

        A host that has just started may have signed it with a key that is not known here yet. So the journals are asked
        for keys before a token is refused, at most once a second.
        """
        found = read_token(text, self._keys, self._wall_clock())
        if found is None and self._clock() - self._keys_at > KEYS_AGAIN_S:
            await self._update_keys()
            found = read_token(text, self._keys, self._wall_clock())
        return found

    async def claim(self, token: ResumeToken, report: HeardReport | None) -> SessionOrigin | None:
        """Take the session of a token over and return where it goes on; None if no journal has it.

        A connection that this host has with the session is told that it is over. Other hosts are told by the journals.

        Args:
            token: The token, which `token` has checked.
            report: What the client has played of the last reply; None if it did not say.

        Raises:
            BackendError: The journals do not answer.
        """
        if live := self._records.pop(token.session, None):
            snapshot = live.capture()
            generation = next_generation(live.origin.generation, secrets.randbits(32))
            live.taken.set()
        else:
            if any(put.session == token.session for put in self._last):
                await self._send_round()
            found = await self._claim_stored(token.session)
            if found is None:
                return None
            snapshot, generation = found
        self._metrics.survival("resumed")
        going_on = resume(snapshot, report)
        return SessionOrigin(token.owner, snapshot.started_at, generation, snapshot=snapshot, resumption=going_on)

    async def knows(self, session: str) -> bool:
        """Return True if the conversation with this key can go on: it is not ended, and this host or a journal has it.

        The key is that of a session whose connection is lost: another host that still has one closes it.

        Raises:
            BackendError: The journals do not answer.
        """
        return session in self._records or await self._claim_stored(session) is not None

    async def _claim_stored(self, session: str) -> tuple[SessionSnapshot, int] | None:
        try:
            async with asyncio.timeout(CLAIM_S):
                claim = await self._store.claim(session)
        except TimeoutError:
            raise BackendError("the journals do not answer.", stage="journal") from None
        if claim is None:
            self._metrics.survival("not_found")
            return None
        try:
            return decode(self._cipher.open(claim.data, session)), claim.generation
        except (UnreadableSnapshot, ValueError):
            logger.warning("the snapshot of a session cannot be read: another version or another key wrote it")
            self._metrics.survival("unreadable")
            return None

    # -- tasks of the host ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send snapshots, and end the sessions that other hosts take over, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._store.run(self._put_all))
            group.create_task(self._send_rounds())
            group.create_task(self._watch_taken())
            group.create_task(self._share_keys())
            group.create_task(self._refresh())

    async def _send_rounds(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if self._records else None):
                    await self._wake.wait()
            self._wake.clear()
            began = self._clock()
            if not self._urgent.is_set():
                await asyncio.sleep(GATHER_S)
            self._urgent.clear()
            with contained("journal", self._metrics, what="a round of snapshots"):
                await self._send_round()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, ROUND_S - (self._clock() - began))):
                    await self._urgent.wait()

    async def _send_round(self) -> None:
        """Send the snapshots that are due, and drop those of ended sessions."""
        now = self._clock()
        puts, self._last = self._last, []
        forgotten, self._forgotten = self._forgotten, []
        sent, size = list[SessionRecord](), 0
        for record in sorted(self._records.values(), key=lambda record: record.not_before):
            if record.due(now) and size < ROUND_BYTES:
                put = self._sealed(record.next_put())
                record.not_before = now + len(put.data) / BYTES_PER_S
                size += len(put.data)
                puts.append(put)
                sent.append(record)
        try:
            if puts:
                self._superseded(await self._store.put(puts))
                self._metrics.survival("stored", len(puts))
            for session, generation in forgotten:
                await self._store.forget(session, generation)
        except BackendError as fault:
            logger.warning("conversations could not be stored: %s", fault)
            self._metrics.survival("failed", len(puts))
            for record in sent:
                record.not_before = self._clock() + 1.0
                record.changed()

    def _sealed(self, put: SnapshotPut) -> SnapshotPut:
        data = self._cipher.seal(put.data, put.session)
        return SnapshotPut(put.session, put.generation, put.sequence, data)

    async def _watch_taken(self) -> None:
        while True:
            with contained("journal", self._metrics):
                try:
                    self._superseded(await self._store.taken())
                    continue
                except BackendError as fault:
                    logger.warning("the journals do not tell which sessions were resumed elsewhere: %s", fault)
            await asyncio.sleep(1.0)

    def _superseded(self, generations: Mapping[str, int]) -> None:
        """End the connections of the sessions that have a newer generation than here: others have taken them over."""
        for session, generation in generations.items():
            record = self._records.get(session)
            if record and record.origin.generation < generation:
                del self._records[session]
                self._metrics.survival("superseded")
                record.taken.set()

    async def _share_keys(self) -> None:
        while True:
            await self._update_keys()
            await asyncio.sleep(KEYS_EVERY_S)

    async def _update_keys(self) -> None:
        """Give the own signing key to the journals, and get those of the other hosts."""
        self._keys_at = self._clock()
        with contained("journal", self._metrics), suppress(BackendError, TimeoutError):
            async with asyncio.timeout(CLAIM_S):
                found = await self._store.share_keys([self._own_key])
            self._keys = tuple(dict.fromkeys((self._own_key, *found)))

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            self._put_all()

    def _put_all(self) -> None:
        for record in self._records.values():
            record.changed()
