"""Tests that every store of snapshots follows the same rules: the in-memory store, and a real Redis server.

Two hosts use the store. Generations decide which of them has the session.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.survival.snapshot_store import LocalSnapshots, SnapshotStore
from cluster.environment import free_port
from deployments.survival.redis_snapshots import RedisSnapshots
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import JournalSettings, parse_settings
from rejoinder.core.survival.journal_table import JournalTable, SnapshotPut
from tests.system.harness.watching import wait_until

Opening = Callable[[str], SnapshotStore]


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """Run a Redis server on a Unix socket and yield its address."""
    socket = tmp_path / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(socket.exists, 10, "Redis")
            yield f"unix://{socket}"
        finally:
            server.kill()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def opening(request: pytest.FixtureRequest) -> Opening:
    """Return a function that opens the store for a host with this name."""
    if request.param == "memory":
        table = JournalTable(1_000_000, 60)
        return lambda holder: LocalSnapshots(JournalSettings(), table, holder=holder)
    url = request.getfixturevalue("redis_url")
    settings = parse_settings({"journal": {"redis_url": url}}).journal
    return lambda holder: RedisSnapshots("app", holder, settings)


@asynccontextmanager
async def running(store: SnapshotStore) -> AsyncIterator[asyncio.Event]:
    """Run the store's own tasks, and yield an event that is set when the store asks for all sessions."""
    refreshed = asyncio.Event()
    task = asyncio.create_task(store.run(refreshed.set))
    try:
        yield refreshed
    finally:
        task.cancel()


async def test_the_newest_snapshot_wins_and_the_older_host_is_refused(opening: Opening) -> None:
    """A late snapshot changes nothing. After a claim by another host, the first host's snapshots are refused."""
    old, new = opening("old"), opening("new")
    assert await old.put([SnapshotPut("s", 0, 2, b"second"), SnapshotPut("t", 0, 1, b"\0\xff")]) == {"s": 0, "t": 0}
    await old.put([SnapshotPut("s", 0, 1, b"first")])
    claim = await new.claim("s")
    assert claim is not None
    assert (claim.data, claim.order, claim.holder) == (b"second", (0, 2), "old")
    assert (await old.put([SnapshotPut("s", 0, 3, b"third")]))["s"] == claim.generation > 0
    assert (await new.put([SnapshotPut("s", claim.generation, 1, b"new")]))["s"] == claim.generation
    again = await old.claim("s")
    assert again is not None
    assert (again.data, again.holder, again.generation > claim.generation) == (b"new", "new", True)
    other = await new.claim("t")
    assert other is not None
    assert other.data == b"\0\xff"


async def test_an_ended_session_is_forgotten_unless_it_was_taken_over(opening: Opening) -> None:
    """A host that has lost a session cannot drop it. The host that has it can. An unknown session is None."""
    old, new = opening("old"), opening("new")
    await old.put([SnapshotPut("s", 0, 1, b"x")])
    claim = await new.claim("s")
    assert claim is not None
    await old.forget("s", 0)
    again = await new.claim("s")
    assert again is not None
    await new.forget("s", again.generation)
    assert await new.claim("s") is None
    assert await new.claim("never") is None


async def test_signing_keys_are_shared(opening: Opening) -> None:
    """Each host gets the keys of the other hosts."""
    assert await opening("a").share_keys(["one"]) == ("one",)
    assert set(await opening("b").share_keys(["two", "one"])) == {"one", "two"}


@pytest.mark.redis
async def test_redis_tells_a_host_that_its_session_was_taken_over(redis_url: str) -> None:
    """A host hears within a second that another host has claimed its session."""
    settings = parse_settings({"journal": {"redis_url": redis_url}}).journal
    old, new = RedisSnapshots("app", "old", settings), RedisSnapshots("app", "new", settings)
    async with running(old) as connected, asyncio.timeout(5):
        await connected.wait()
        await old.put([SnapshotPut("s", 0, 1, b"x")])
        claim = await new.claim("s")
        assert claim is not None
        assert await old.taken() == {"s": claim.generation}


async def test_an_absent_redis_is_a_typed_error(tmp_path: Path) -> None:
    """Without a server, each operation fails with BackendError, which names the setting."""
    settings = parse_settings({"journal": {"redis_url": f"redis://127.0.0.1:{free_port()}/0"}}).journal
    store = RedisSnapshots("app", "host", settings)
    for operation in (store.put([SnapshotPut("s", 0, 1, b"x")]), store.claim("s"), store.forget("s", 0)):
        with pytest.raises(BackendError, match=r"journal\.redis_url"):
            await operation
