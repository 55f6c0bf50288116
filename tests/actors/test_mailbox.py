"""Tests of a session's mailbox, which has a lane for control events and a lane for client events.

Control events are handled first. Client events wait while their lane is full.
"""

from __future__ import annotations

import asyncio

from actors.mailbox import Mailbox
from tests.actors.virtual_time import virtual


@virtual
async def test_control_comes_before_client_and_each_in_order() -> None:
    """Control events are returned before client events, and the events of each lane keep their order."""
    box: Mailbox[str, int] = Mailbox()
    await box.submit(1)
    box.post("a")
    await box.submit(2)
    box.post("b")
    assert [await box.get() for _ in range(4)] == ["a", "b", 1, 2]


@virtual
async def test_a_full_client_lane_holds_the_client_back_and_not_the_system() -> None:
    """If the client lane is full, `submit` waits until an event was taken, and order is kept; `post` never waits."""
    box: Mailbox[str, int] = Mailbox(client_lane=2)
    arrived: list[int] = []

    async def send(number: int) -> None:
        await box.submit(number)
        arrived.append(number)

    senders = [asyncio.create_task(send(number)) for number in range(4)]
    await asyncio.sleep(1)
    assert arrived == [0, 1]
    box.post("a")
    assert await box.get() == "a"
    await asyncio.sleep(1)
    assert arrived == [0, 1]
    assert [await box.get(), await box.get()] == [0, 1]
    await asyncio.wait(senders)
    assert [await box.get(), await box.get()] == [2, 3]


@virtual
async def test_a_cancelled_submit_adds_nothing() -> None:
    """If a `submit` that waits for a full lane is cancelled, its event is not added. Later events can be added."""
    box: Mailbox[str, int] = Mailbox(client_lane=1)
    await box.submit(1)
    waiting = asyncio.create_task(box.submit(2))
    await asyncio.sleep(1)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert await box.get() == 1
    await asyncio.wait_for(box.submit(3), 1)
    assert await box.get() == 3


@virtual
async def test_a_cancelled_get_loses_nothing() -> None:
    """A cancelled `get` loses no event, not even one that arrives at the same moment."""
    box: Mailbox[str, int] = Mailbox()
    for early in (False, True):
        waiting = asyncio.create_task(box.get())
        await asyncio.sleep(0)
        if early:
            box.post("a")
        waiting.cancel()
        await asyncio.wait({waiting})
        if not early:
            box.post("a")
        assert await asyncio.wait_for(box.get(), 1) == "a"
