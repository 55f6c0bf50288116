"""The voice activity tick: batches decide the waiting audio windows of all sessions of a host.

A tick makes up to `max_windows_per_tick` calls of the model, one after another. Each call is a batch with one waiting
window (32 ms of audio) of every session that has one. A session's windows need separate calls, because the model needs
its state after one window to decide the next. One tick is in flight at a time. An audio input moves to its next window
only when the current one was decided. A failed call is repeated with the same states on another replica, and no audio
is lost as long as it fits into the ring buffer.

A window that makes the model fail must not stop the detection of all sessions. If a batch has failed SPLIT_AFTER times,
each of its windows is decided by a call of its own, once. A window of silence is sent too, as a control. If only some
of these calls fail, the fault lies in those windows: they are skipped, and their sessions are decided alone until a
call succeeds. If all fail, the stage is down, and the batch is repeated until a call succeeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.listening.audio_input import STATE_FLOATS, AudioInput
from actors.stages.ports import ANYWHERE, Metrics, VadBatch, VadPort
from actors.stages.retry import StageFault, attempts, contained
from rejoinder.core.audio.pcm import SAMPLE_BYTES, VAD_WINDOW, pcm16_to_float
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.settings.settings import HostSettings
from rejoinder.core.turns.speech_detector import SpeechEvent

logger = logging.getLogger(__name__)

# Pause between ticks, in seconds per session; in all at most `tick_ms`. It delays every caller, so it is short: at 100
# sessions 10 ms gather 31 windows, and batches of more than 16 windows cost no less per window (59 us; 123 us for a
# batch of one, docs/results/density.md). A host with few sessions decides each window as it arrives.
SPACING_S_PER_SESSION = 0.002
STATE_BYTES = STATE_FLOATS * 4

SPLIT_AFTER = 4
"""Number of failures of a batch after which its windows are decided one by one: 0.3 s if they fail at once. The first
failures are usually those of a replica, and no window must be skipped because of them."""


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


@dataclass(frozen=True, slots=True)
class _Window:
    """16-bit PCM of one window, and the detector's state before it."""

    pcm: bytes
    state: bytes


@dataclass(frozen=True, slots=True)
class _Waiting(_Window):
    """The next undecided window of a session, and its first sample."""

    session: VadListener
    position: int


_PROBE = _Window(bytes(VAD_WINDOW * SAMPLE_BYTES), bytes(STATE_BYTES))
"""Silence at the start of a stream. If its call fails too, the stage is down, and no window is at fault."""

_Decision = tuple[float, bytes]
"""Probability of speech in a window, and the detector's state after it."""


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
        # Sessions whose last window made its calls fail. Their next window is decided by a call of its own.
        self._suspects: set[VadListener] = set()
        self._audio = asyncio.Event()
        self._failing = False

    def join(self, session: VadListener) -> None:
        """Decide this session's windows from the next tick on."""
        self._sessions.add(session)

    def leave(self, session: VadListener) -> None:
        """Stop deciding this session's windows. The result of a decision under way is dropped."""
        self._sessions.discard(session)
        self._suspects.discard(session)

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
        waiting = [
            _Waiting(*window, session, session.audio_input.processed)
            for session in backlogged
            if (window := session.audio_input.window()) is not None
        ]
        alone = [one for one in waiting if one.session in self._suspects]
        together = [one for one in waiting if one.session not in self._suspects]
        results = (await self._results(together) if together else []) + await self._one_by_one(alone)
        for one, result in zip(together + alone, results, strict=True):
            session = one.session
            if session not in self._sessions or session.audio_input.processed != one.position:
                continue  # the session left, or skipped this window because its turn detection was switched off
            with contained("vad", self._metrics, what="a session's speech"):
                self._apply(session, result)

    def _apply(self, session: VadListener, result: _Decision | None) -> None:
        """Apply the result of a session's window.

        None means that the window made its calls fail. Then the window is skipped, and the session's windows are
        decided by calls of their own until one succeeds.
        """
        if result is None:
            self._metrics.error("backend", "vad")
            self._suspects.add(session)
            session.audio_input.skip_window()
            session.vad_failed()
            return
        if session in self._suspects:
            self._suspects.discard(session)
            session.vad_recovered()
        session.speech(session.audio_input.decide(*result))

    async def _results(self, waiting: list[_Waiting]) -> list[_Decision | None]:
        """Return the speech probability and the next state of each window; None for one that makes its calls fail.

        A failed batch is repeated until a replica answers. All sessions of the host are told of each failure, and of
        the first success after failures.
        """
        failed = 0
        results: list[_Decision | None] = []
        async for attempt in attempts("vad", self._on_failure):
            if failed == SPLIT_AFTER:
                *singles, probe = await self._one_by_one([*waiting, _PROBE])
                if probe or any(singles):
                    results = singles
                    break
            with contained("vad", self._metrics, quiet=self._failing) as port, attempt:
                results = list(await self._call(waiting, attempt.avoid))
            failed += not results
            if port.broke:
                self._failed()
        if self._failing:
            self._failing = False
            for session in list(self._sessions):
                session.vad_recovered()
        return results

    async def _one_by_one(self, windows: Sequence[_Window]) -> list[_Decision | None]:
        """Return the result of each window from a call of its own; None if that call failed."""
        calls = [self._call([one], ANYWHERE) for one in windows]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        return [None if isinstance(outcome, BaseException) else outcome[0] for outcome in outcomes]

    async def _call(self, windows: Sequence[_Window], avoid: frozenset[str]) -> list[_Decision]:
        """Return the speech probability and the detector's next state for each window, from one call of the port.

        `avoid` has the ids of replicas that should not be used.

        Raises:
            BackendError: The result has the wrong size.
        """
        batch = VadBatch(
            n=len(windows),
            windows=pcm16_to_float(b"".join([one.pcm for one in windows])).tobytes(),
            states=b"".join(one.state for one in windows),
        )
        async with asyncio.timeout(self._attempt_s):
            result = await self._vad.step(batch, avoid=avoid)
        if len(result.probabilities) != batch.n or len(result.states) != batch.n * STATE_BYTES:
            raise BackendError(f"the result for {batch.n} windows has the wrong size.", stage="vad")
        states = (result.states[at : at + STATE_BYTES] for at in range(0, len(result.states), STATE_BYTES))
        return list(zip(result.probabilities, states, strict=True))

    def _on_failure(self, fault: StageFault) -> None:
        if not self._failing:
            logger.warning("voice activity detection failed: %r", fault)
        self._metrics.error("overload" if isinstance(fault, Overloaded) else "backend", "vad")
        self._failed()

    def _failed(self) -> None:
        self._failing = True
        for session in list(self._sessions):
            session.vad_failed()
