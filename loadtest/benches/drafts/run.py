"""Run hesitant callers, who pause inside turns, against a server.

Each caller has one OpenAI Realtime WebSocket. A single task sends the frames of all callers at their deadlines.
"""

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
"""Time over which the starts of the calls are spread, in seconds."""

SECONDS_PER_TURN = 20.0
"""Time limit of a call in seconds, per turn of the longest script."""

POLL_S = 0.2

SESSION = session_update(AudioFormat.PCM, "semantic_vad", 0, transcribed=True)


@dataclass(frozen=True, slots=True)
class HeldCalls:
    """Result of all calls of a run.

    Attributes:
        evidence: Sum of the evidence of all calls.
        late_ms: 99th percentile of the delay with which the callers sent their frames, in milliseconds.
    """

    evidence: Evidence
    late_ms: float


async def hold(url: str, speech: Speech, scripts: Sequence[Sequence[TurnScript]]) -> HeldCalls:
    """Make one call per script, all at the same time, and return their results.

    If a call is lost after it began, its remaining turns are unanswered and its evidence has a fault.

    Args:
        url: The server's WebSocket URL, without `/realtime`.
        speech: The encoded phrases to which the scripts refer.
        scripts: One script per caller.

    Raises:
        Overloaded: The server refused a call.
        BackendError: A call could not be set up.
    """
    start = time.monotonic() + 0.1
    pacer = FramePacer(start)
    longest = max((len(script) for script in scripts), default=0)
    try:
        async with asyncio.TaskGroup() as group:
            pacing = group.create_task(pacer.run())
            step_s = SPREAD_S / max(1, len(scripts))
            calls = [
                group.create_task(
                    _call(url, speech=speech, script=script, pacer=pacer, when=(start + number * step_s, longest))
                )
                for number, script in enumerate(scripts)
            ]
            evidences = await asyncio.gather(*calls)
            pacing.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # only the first error: it has cancelled the other calls
    late_s = float(np.percentile(pacer.late_s, 99, method="inverted_cdf")) if pacer.late_s else 0.0
    return HeldCalls(sum(evidences, NOTHING), round(late_s * 1000, 2))


async def _call(
    url: str, speech: Speech, script: Sequence[TurnScript], pacer: FramePacer, *, when: tuple[float, int]
) -> Evidence:
    """Make one call and return its evidence.

    Args:
        url: The server's WebSocket URL, without `/realtime`.
        speech: The encoded phrases to which the script refers.
        script: The caller's turns.
        pacer: Sends the caller's frames at their deadlines.
        when: (start of the call in seconds of the monotonic clock, number of turns in the longest script). The call
            lasts at most that number times `SECONDS_PER_TURN`.
    """
    begins_at, turns = when
    await asyncio.sleep(max(0.0, begins_at - time.monotonic()))
    lost = asyncio.Event()
    try:
        socket = await dial(url, "none", SESSION, lambda _: lost.set())
    except CallRefused as refusal:
        raise Overloaded(f"{url} refused a call (HTTP {refusal.status}).", "Use fewer callers.") from refusal
    except (ConnectionError, TimeoutError) as error:
        raise BackendError(f"cannot connect to {url} ({error}).", "Check that the server is running.") from error
    caller = HesitantCaller(speech, script)
    socket.begin(caller)
    slot = random.Random(begins_at).randrange(FRAME_SLOTS)
    pacer.join(socket, slot)
    deadline = time.monotonic() + turns * SECONDS_PER_TURN
    try:
        while not (caller.over or lost.is_set()) and time.monotonic() < deadline:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await lost.wait()
    finally:
        pacer.leave(socket, slot)
        await socket.close()
    if lost.is_set() and not caller.over:
        caller.faults.append(f"the call was lost: {socket.cause}")
    caller.hang_up()
    return evidence(caller, len(script))
