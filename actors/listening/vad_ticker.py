"""The voice activity tick: batches decide the waiting audio windows of all sessions of a host.

A tick makes up to `max_windows_per_tick` calls of the model, one after another. Each call is a batch with one waiting
window (32 ms of audio) of every session that has one. A session's windows need separate calls, because the model needs
its state after one window to decide the next. One tick is in flight at a time. An audio input moves to its next window
only when the current one was decided. A failed call is repeated with the same states on another replica, and no audio
is lost as long as it fits into the ring buffer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from actors.listening.audio_input import STATE_FLOATS, AudioInput
from actors.stages.ports import Metrics, VadBatch, VadPort, VadResult
from actors.stages.retry import StageFault, attempts, contained
from rejoinder.core.audio.pcm import pcm16_to_float
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.settings.settings import HostSettings
from rejoinder.core.turns.speech_detector import SpeechEvent

logger = logging.getLogger(__name__)

# Pause between ticks, in seconds per session; in all at most `tick_ms`. It delays every caller, so it is short: at 100
# sessions 10 ms gather 31 windows, and batches of more than 16 windows cost no less per window (59 us; 123 us for a
# batch of one, docs/results/density.md). A host with few sessions decides each window as it arrives.
SPACING_S_PER_SESSION = 0.002
STATE_BYTES = STATE_FLOATS * 4


class VadListener(Protocol):
    """What the ticker needs from a session: its audio, and methods that handle the results."""

    @property
    def audio_input(self) -> AudioInput:
        """The session's audio."""
        ...

    def speech(self, events: tuple[SpeechEvent, ...]) -> None:
        """Handle the starts and ends of speech in a window that was just decided; often there are none."""
        ...

    def vad_failed(self) -> None:
        """Handle a failed call of voice activity detection. Every session of the host is told of each failed call."""
        ...

    def vad_recovered(self) -> None:
        """Handle the first successful call of voice activity detection after failed ones."""
        ...


class VadTicker:
    """Decides the audio windows of all sessions of one host, in batches, with the voice activity model.

    Keep `run` running, and call `wake` when a session has received audio: that starts a tick. Sessions may join and
    leave at any time.
    """

    def __init__(self, vad: VadPort, settings: HostSettings, attempt_s: float, metrics: Metrics) -> None:
        """Create a ticker without sessions; `attempt_s` bounds each call of the port, in seconds."""
        self._vad = vad
        self._settings = settings
        self._attempt_s = attempt_s
        self._metrics = metrics
        self._sessions: set[VadListener] = set()
        self._audio = asyncio.Event()
        self._failing = False

    def join(self, session: VadListener) -> None:
        """Decide this session's windows from the next tick on."""
        self._sessions.add(session)

    def leave(self, session: VadListener) -> None:
        """Stop deciding this session's windows. The result of a decision under way is dropped."""
        self._sessions.discard(session)

    def wake(self) -> None:
        """Let `run` start a tick, because a session received audio. Returns at once."""
        self._audio.set()

    async def run(self) -> None:
        """Run ticks until cancelled. A tick starts when `wake` was called or windows were left by the tick before."""
        while True:
            await self._audio.wait()
            self._audio.clear()
            await self.tick()
            spacing = SPACING_S_PER_SESSION * len(self._sessions)
            await asyncio.sleep(min(self._settings.tick_ms / 1000, spacing))

    async def tick(self) -> None:
        """Decide at most `max_windows_per_tick` waiting windows per session. If some may be left, `run` ticks again."""
        for _ in range(self._settings.max_windows_per_tick):
            backlogged = [session for session in self._sessions if session.audio_input.backlog]
            if not backlogged:
                return
            await self._decide(backlogged)
        self._audio.set()

    async def _decide(self, backlogged: list[VadListener]) -> None:
        windows = [(session, *window) for session in backlogged if (window := session.audio_input.window()) is not None]
        batch = VadBatch(
            n=len(windows),
            windows=pcm16_to_float(b"".join([pcm for _, pcm, _ in windows])).tobytes(),
            states=b"".join(state for _, _, state in windows),
        )
        positions = [session.audio_input.processed for session, _, _ in windows]
        result = await self._step(batch)
        for index, (session, _, _) in enumerate(windows):
            if session not in self._sessions or session.audio_input.processed != positions[index]:
                continue  # the session left, or skipped this window because its turn detection was switched off
            state = result.states[index * STATE_BYTES : (index + 1) * STATE_BYTES]
            session.speech(session.audio_input.decide(result.probabilities[index], state))

    async def _step(self, batch: VadBatch) -> VadResult:
        """Return the result of a batch. Repeat a failed call until a replica answers.

        All sessions of the host are told of each failure, and of the first success after failures.
        """
        async for attempt in attempts("vad", self._on_failure):
            with contained("vad", self._metrics, quiet=self._failing) as port, attempt:
                async with asyncio.timeout(self._attempt_s):
                    result = await self._vad.step(batch, avoid=attempt.avoid)
                if len(result.probabilities) != batch.n or len(result.states) != batch.n * STATE_BYTES:
                    raise BackendError(f"the result for {batch.n} windows has the wrong size.", stage="vad")
            if port.broke:
                self._failed()
        if self._failing:
            self._failing = False
            for session in list(self._sessions):
                session.vad_recovered()
        return result

    def _on_failure(self, fault: StageFault) -> None:
        if not self._failing:
            logger.warning("voice activity detection failed: %r", fault)
        self._metrics.error("overload" if isinstance(fault, Overloaded) else "backend", "vad")
        self._failed()

    def _failed(self) -> None:
        self._failing = True
        for session in list(self._sessions):
            session.vad_failed()
