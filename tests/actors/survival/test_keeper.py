"""Tests of the keeper: what happens to calls and snapshots if the journal is slow, fails or comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from actors.survival.session_keeper import CLAIM_S, ROUND_S
from actors.survival.snapshot_store import LocalSnapshots
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import JournalSettings
from rejoinder.core.survival.encoding import decode
from rejoinder.core.survival.journal_table import SnapshotClaim, SnapshotPut
from rejoinder.core.survival.resume_token import ResumeToken
from tests.actors.fakes import ANSWER
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual


class TroubledStore(LocalSnapshots):
    """In-memory store that takes `delay_s` for each put, and fails every call while `broken` is True.

    `puts` has the snapshots of each put, `most_at_once` is the largest number of puts at the same time.
    """

    def __init__(self, delay_s: float = 0.0, *, broken: bool = False) -> None:
        super().__init__(JournalSettings())
        self.delay_s = delay_s
        self.broken = broken
        self.puts: list[list[SnapshotPut]] = []
        self.most_at_once = 0
        self._running = 0

    async def put(self, puts: Sequence[SnapshotPut]) -> dict[str, int]:
        self.puts.append(list(puts))
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self._running -= 1
        if self.broken:
            raise BackendError("no journal.", stage="journal")
        return await super().put(puts)

    async def claim(self, session: str) -> SnapshotClaim | None:
        await asyncio.sleep(self.delay_s)
        if self.broken:
            raise BackendError("no journal.", stage="journal")
        return await super().claim(session)


async def _turn_s(play: Play) -> float:
    """Return the seconds from the end of speech to the first audio in a call of two turns."""
    async with play.call() as caller:
        await caller.say()
        await caller.speak(1.0)
        spoke_until = asyncio.get_running_loop().time()
        await caller.listen("response.output_audio.delta", len(caller.of("response.output_audio.delta")) + 1)
        return asyncio.get_running_loop().time() - spoke_until


@pytest.mark.parametrize("store", [TroubledStore(0.5), TroubledStore(broken=True)], ids=["slow", "broken"])
def test_turns_do_not_wait_for_the_journal(store: TroubledStore) -> None:
    """A turn takes the same time without a journal, and with one that is slow or fails. One put runs at a time."""

    @virtual
    async def scenario() -> None:
        assert await _turn_s(Play(store=store)) == pytest.approx(await _turn_s(Play()), abs=1e-6)
        assert store.most_at_once == 1

    scenario()


@virtual
async def test_a_burst_of_changes_costs_few_snapshots() -> None:
    """Fifty items in a row are stored with as many puts as rounds fit into their time, and the last has all items."""
    store = TroubledStore()
    async with Play(store=store).call() as caller:
        began = asyncio.get_running_loop().time()
        for number in range(50):
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"item {number}"}]}
            await caller.ask(type="conversation.item.create", item=item)
        await caller.until("conversation.item.done", 50)
        await asyncio.sleep(0.5)
        assert len(store.puts) <= 0.5 / ROUND_S + 2
        assert len(decode(store.puts[-1][0].data).items) == 50
        assert asyncio.get_running_loop().time() - began < 1


@virtual
async def test_the_newest_snapshot_is_stored_when_the_journal_is_back() -> None:
    """After failures the session is put again, with all that happened meanwhile."""
    store = TroubledStore(broken=True)
    async with Play(store=store).call() as caller:
        await caller.say()
        store.broken = False
        await asyncio.sleep(2.0)
        claim = await store.claim("test")
        assert claim
        assert [item.text for item in decode(claim.data).items] == ["What time is it?", ANSWER]


@virtual
async def test_a_long_conversation_is_sent_less_often() -> None:
    """With 400 kB of items, the session sends at most about a megabyte in a second, however often it changes."""
    store = TroubledStore()
    async with Play(store=store).call() as caller:
        item = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "word " * 1000}]}
        for _ in range(80):
            await caller.ask(type="conversation.item.create", item=item)
        await caller.until("conversation.item.done", 80)
        await asyncio.sleep(2.0)
        store.puts.clear()
        for _ in range(100):
            await caller.ask(type="session.update", session={"type": "realtime", "instructions": "x"})
            await asyncio.sleep(0.05)
        assert sum(len(put.data) for puts in store.puts for put in puts) <= 6_000_000


@virtual
async def test_a_claim_fails_in_time_if_the_journal_does_not_answer() -> None:
    """A claim raises BackendError if the journal is broken, and after two seconds if it hangs."""
    for store in (TroubledStore(broken=True), TroubledStore(60.0)):
        async with Play(store=store).open() as host:
            assert host.keeper
            began = asyncio.get_running_loop().time()
            with pytest.raises(BackendError):
                await host.keeper.claim(ResumeToken("s", "", 10**6), None)
            assert asyncio.get_running_loop().time() - began <= CLAIM_S


@virtual
async def test_no_word_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The logs of a call contain no word of it, whether the journal works, fails or has a damaged snapshot."""
    caplog.set_level(logging.DEBUG)
    store = TroubledStore()
    async with Play(store=store).call() as caller:
        await caller.say()
        store.broken = True
        await caller.say()
    store.broken = False
    await store.put([SnapshotPut("s", 2**40, 1, b'{"version":1,"items":["What time is it?"]}')])
    async with Play(store=store).open() as host:
        assert host.keeper
        assert await host.keeper.claim(ResumeToken("s", "", 10**6), None) is None
    assert caplog.text
    assert "What time" not in caplog.text
    assert "noon" not in caplog.text
