"""The session journal in Redis, for clusters that already have one: it survives the loss of every node.

Each session is a hash with the fields of its newest snapshot, which expires after `journal.keep_s`. Lua scripts compare
the generations, so that two hosts never both win. The bound in bytes is Redis's own (`maxmemory`).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import JournalSettings
from rejoinder.core.survival.journal_table import MAX_KEYS, SnapshotClaim, SnapshotPut

# Both scripts are atomic. Generations are below 2 ** 53, so Lua's numbers are exact. A claim keeps the snapshot and
# publishes the new generation on the channel of the host that had the session.
PUT = """
local known = tonumber(redis.call('HGET', KEYS[1], 'generation') or '-1')
local generation, sequence = tonumber(ARGV[1]), tonumber(ARGV[2])
if generation < known then return string.format('%.0f', known) end
local stored = tonumber(redis.call('HGET', KEYS[1], 'stored') or '-1')
local last = tonumber(redis.call('HGET', KEYS[1], 'sequence') or '-1')
if generation > stored or sequence > last then
  redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'stored', ARGV[1], 'sequence', ARGV[2], 'data', ARGV[3],
    'holder', ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return ARGV[1]
"""
CLAIM = """
local found = redis.call('HMGET', KEYS[1], 'generation', 'stored', 'sequence', 'data', 'holder')
if not found[1] then return nil end
local generation = (math.floor(tonumber(found[1]) / 4294967296) + 1) * 4294967296 + tonumber(ARGV[1])
local text = string.format('%.0f', generation)
redis.call('HSET', KEYS[1], 'generation', text, 'holder', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if found[5] ~= ARGV[2] then redis.call('PUBLISH', ARGV[4] .. found[5], ARGV[5] .. ' ' .. text) end
return {text, found[2], found[3], found[4], found[5]}
"""
FORGET = """
local known = tonumber(redis.call('HGET', KEYS[1], 'generation') or '-1')
if known >= 0 and known <= tonumber(ARGV[1]) then redis.call('DEL', KEYS[1]) end
"""


class RedisSnapshots:
    """The session journal of one host in Redis (`actors.survival.snapshot_store.SnapshotStore`)."""

    def __init__(self, application: str, holder: str, settings: JournalSettings) -> None:
        """Create the journal. The connection is opened when it is needed, and again after a failure.

        Args:
            application: Name of the Serve application. Each has its own keys in Redis.
            holder: Name of this host.
            settings: Section `journal`, with the address of Redis.
        """
        self._prefix = f"rejoinder:{application}"
        self._holder = holder
        self._keep_ms = round(settings.keep_s * 1000)
        timeout_s = settings.put_timeout_ms / 1000
        self._redis: Any = Redis.from_url(
            settings.redis_url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, protocol=2
        )
        self._put = self._redis.register_script(PUT)
        self._claim = self._redis.register_script(CLAIM)
        self._forget = self._redis.register_script(FORGET)
        self._taken: asyncio.Queue[dict[str, int]] = asyncio.Queue()

    async def run(self, refresh: Callable[[], None]) -> None:
        """Listen for sessions that were taken over, until cancelled. `refresh` is called after each connection."""
        channel = f"{self._prefix}:taken:{self._holder}"
        while True:
            try:
                async with self._redis.pubsub() as listener:
                    await listener.subscribe(channel)
                    refresh()
                    while True:
                        message = await listener.get_message(ignore_subscribe_messages=True, timeout=5.0)
                        if message:
                            session, generation = message["data"].decode().rsplit(" ", 1)
                            self._taken.put_nowait({session: int(generation)})
            except (RedisError, OSError):
                await asyncio.sleep(1.0)

    async def put(self, puts: Sequence[SnapshotPut]) -> dict[str, int]:
        """Store snapshots and return the newest generation of each session (`SnapshotStore`)."""
        with _failing():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for put in puts:
                    arguments: list[Any] = [put.generation, put.sequence, put.data, self._holder, self._keep_ms]
                    await self._put(keys=[self._key(put.session)], args=arguments, client=pipeline)
                answers = await pipeline.execute()
        return {put.session: int(answer) for put, answer in zip(puts, answers, strict=True)}

    async def claim(self, session: str) -> SnapshotClaim | None:
        """Take a session over and return its snapshot; None if there is none (`SnapshotStore`)."""
        arguments: list[Any] = [secrets.randbits(32), self._holder, self._keep_ms, f"{self._prefix}:taken:", session]
        with _failing():
            found = await self._claim(keys=[self._key(session)], args=arguments)
        if not found:
            return None
        generation, stored, sequence, data, holder = found
        return SnapshotClaim(int(generation), (int(stored), int(sequence)), data, holder.decode())

    async def forget(self, session: str, generation: int) -> None:
        """Drop the snapshot of a session that has ended (`SnapshotStore`)."""
        with _failing():
            await self._forget(keys=[self._key(session)], args=[generation])

    async def taken(self) -> dict[str, int]:
        """Wait until Redis tells that a session of this host was taken over (`SnapshotStore`)."""
        return await self._taken.get()

    async def share_keys(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Keep signing keys and return all; the oldest are dropped first (`SnapshotStore`)."""
        name = f"{self._prefix}:keys"
        with _failing():
            async with self._redis.pipeline() as pipeline:
                pipeline.zadd(name, {key: time.time() for key in keys}, nx=True)
                pipeline.zremrangebyrank(name, 0, -MAX_KEYS - 1)
                pipeline.zrange(name, 0, -1)
                found = (await pipeline.execute())[-1]
        return tuple(key.decode() for key in found)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _key(self, session: str) -> str:
        return f"{self._prefix}:session:{session}"


@contextmanager
def _failing() -> Iterator[None]:
    """Turn failures of Redis into BackendError."""
    try:
        yield
    except (RedisError, OSError) as fault:
        raise BackendError(
            f"Redis failed ({type(fault).__name__}).", "Check journal.redis_url.", stage="journal"
        ) from None
