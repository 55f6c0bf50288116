"""Hesitant callers over the wire: OpenAI Realtime, one WebSocket each, paced by one wheel."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from loadtest.benches.drafts.caller import HesitantCaller
from loadtest.benches.drafts.evidence import NOTHING, Evidence, evidence
from loadtest.benches.drafts.script import TurnScript
from loadtest.callers.call_socket import CallRefused, dial, session_update
from loadtest.generator.pacer import FramePacer
from loadtest.scenario.schedule import FRAME_SLOTS
from loadtest.scenario.utterances import Speech
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.wire.formats import AudioFormat

SPREAD_S = 4.0
"""Calls begin one after another over so long."""

SECONDS_A_TURN = 20.0
"""A run ends after so long for each turn of a call, whatever is still open then."""

POLL_S = 0.2

SESSION = session_update(AudioFormat.PCM, "semantic_vad", 0, transcribed=True)


@dataclass(frozen=True, slots=True)
class HeldCalls:
    """What all calls prove together, and how late their frames left at the 99th percentile."""

    evidence: Evidence
    late_ms: float


async def hold(url: str, speech: Speech, scripts: Sequence[Sequence[TurnScript]]) -> HeldCalls:
    """Hold a call a script, all at the same time, with the server at `url` (ws, without /realtime).

    Raises Overloaded if a call is refused, BackendError if it cannot be set up; one that is lost later leaves turns
    unanswered, and says so.
    """
    start = time.monotonic() + 0.1
    wheel = FramePacer(start)
    longest = max((len(script) for script in scripts), default=0)
    try:
        async with asyncio.TaskGroup() as group:
            turning = group.create_task(wheel.run())
            step_s = SPREAD_S / max(1, len(scripts))
            calls = [
                group.create_task(
                    _call(url, speech=speech, script=script, wheel=wheel, when=(start + number * step_s, longest))
                )
                for number, script in enumerate(scripts)
            ]
            found = await asyncio.gather(*calls)
            turning.cancel()
    except ExceptionGroup as faults:
        raise faults.exceptions[0] from None  # the first one stopped the others
    late_s = float(np.percentile(wheel.late_s, 99, method="inverted_cdf")) if wheel.late_s else 0.0
    return HeldCalls(sum(found, NOTHING), round(late_s * 1000, 2))


async def _call(
    url: str, speech: Speech, script: Sequence[TurnScript], wheel: FramePacer, *, when: tuple[float, int]
) -> Evidence:
    """One call; `when`: the instant at which it begins, and the turns whose time it has."""
    begins_at, turns = when
    await asyncio.sleep(max(0.0, begins_at - time.monotonic()))
    lost = asyncio.Event()
    try:
        socket = await dial(url, "none", SESSION, lambda _: lost.set())
    except CallRefused as refusal:
        raise Overloaded(f"{url} refuses a call (HTTP {refusal.status}).", "Call with fewer callers.") from refusal
    except (ConnectionError, TimeoutError) as fault:
        raise BackendError(f"no call at {url} ({fault}).", "Is the server up?") from fault
    caller = HesitantCaller(speech, script)
    socket.begin(caller)
    slot = random.Random(begins_at).randrange(FRAME_SLOTS)
    wheel.join(socket, slot)
    deadline = time.monotonic() + turns * SECONDS_A_TURN
    try:
        while not (caller.over or lost.is_set()) and time.monotonic() < deadline:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await lost.wait()
    finally:
        wheel.leave(socket, slot)
        await socket.close()
    if lost.is_set() and not caller.over:
        caller.faults.append(f"the call was lost: {socket.cause}")
    caller.hang_up()
    return evidence(caller, len(script))
