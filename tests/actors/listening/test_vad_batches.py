"""Tests of the voice activity tick, one call for a batch of all sessions' audio.

A fault caused by one session does not stop speech detection for the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest

from actors.session import Session
from actors.stages.ports import ANYWHERE, VadBatch, VadResult
from rejoinder.core.errors import BackendError
from rejoinder.core.turns.speech_detector import SpeechEvent
from tests.actors.fakes import LoudnessVad
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

POISON = 12_345
BUG = ZeroDivisionError("a bug")


@dataclass
class FragileVad(LoudnessVad):
    """Fake voice activity detection that fails for every batch with a window whose first sample is POISON."""

    poisoned: Exception = BUG
    calls: int = 0

    async def step(self, batch: VadBatch, *, avoid: frozenset[str] = ANYWHERE) -> VadResult:
        self.calls += 1
        windows = np.frombuffer(batch.windows, np.float32).reshape(batch.n, 512)
        if (np.rint(windows[:, 0] * 32_768) == POISON).any():
            raise self.poisoned
        return await super().step(batch, avoid=avoid)


async def _speak_poison(session: Session, seconds: float) -> None:
    """Send windows in real time that start with POISON, so every batch with them fails."""
    for _ in range(round(seconds / 0.032)):
        await asyncio.sleep(0.032)
        session.append_audio(np.full(512, POISON, "<i2").tobytes())


@pytest.mark.parametrize("poisoned", [BUG, BackendError("gone.", stage="vad"), TimeoutError()], ids=repr)
@virtual
async def test_a_window_that_fails_does_not_make_other_sessions_deaf(poisoned: Exception) -> None:
    """If one of three callers sends windows that fail for 5 s, the other two are answered in that time.

    The windows of the faulty caller do not pile up either.
    """
    play = Play(vad=FragileVad(poisoned=poisoned))
    async with play.open() as host:
        callers = [Caller() for _ in range(3)]
        async with (
            host.converse("a", callers[0].take, "m") as callers[0].session,
            host.converse("b", callers[1].take, "m") as callers[1].session,
            host.converse("c", callers[2].take, "m") as bad,
        ):
            poison = asyncio.create_task(_speak_poison(bad, 5.0))
            began = asyncio.get_running_loop().time()
            await asyncio.gather(callers[0].speak(1.0), callers[1].speak(1.0))
            await asyncio.gather(*(caller.listen("response.output_audio.delta") for caller in callers[:2]))
            assert asyncio.get_running_loop().time() - began < 2.5
            assert not poison.done()
            await poison
            assert bad.audio_input.received - bad.audio_input.processed < 4 * 512


@virtual
async def test_a_session_recovers_after_its_window_failed() -> None:
    """After 0.5 s of windows that fail, a caller's next speech is detected and answered."""
    play = Play(vad=FragileVad())
    async with play.open() as host:
        caller, other = Caller(), Caller()
        async with (
            host.converse("a", caller.take, "m") as caller.session,
            host.converse("b", other.take, "m") as other.session,
        ):
            hush = asyncio.create_task(other.hush(20))
            await _speak_poison(caller.session, 0.5)
            await caller.say()
            hush.cancel()
    assert "speech_started" in str(caller.types)


@virtual
async def test_one_session_s_handler_does_not_stop_the_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in one session's handling of its speech events is counted, and the other sessions are answered."""
    play = Play()
    handle = Session.speech

    def broken(session: Session, events: tuple[SpeechEvent, ...]) -> None:
        if session.context.id.endswith("bad"):
            raise BUG
        handle(session, events)

    monkeypatch.setattr(Session, "speech", broken)
    async with play.open() as host:
        caller, other = Caller(), Caller()
        async with (
            host.converse("good", caller.take, "m") as caller.session,
            host.converse("bad", other.take, "m") as other.session,
        ):
            noise = asyncio.create_task(other.speak(20))
            done = await caller.say()
            noise.cancel()
    assert done["response"]["status"] == "completed"
    assert play.metrics.counts["internal vad"] > 10
