"""Sounds that a caller may hear before the answer: an apology for a failing stage, or a filler for a late answer.

Both are prepared clips (held clips). They need no engine and are not part of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

from actors.replying.requests import CommittedTurn
from actors.replying.speech_output import SpeechOutput
from actors.stages.retry import StageFailures
from actors.stages.services import Services
from rejoinder.core.measuring.waterfall import Marks
from rejoinder.core.reply.held_clips import HeldClip

# Interval in seconds of the checks whether the caller hears anything.
SILENCE_CHECK_S = 0.25


class Fillers:
    """Apology and filler of one reply. Call `begin` when the reply starts, and `end` when it was heard.

    Call `step_changed` whenever a stage of the turn began or ended.

    Attributes:
        apologised: True if the apology was played.
        filler_started_at: Monotonic time at which a filler started; None if there was none.
        spoken_text: The words of the clips that were played, because their echo may come back through the microphone.
    """

    def __init__(
        self,
        services: Services,
        speech: SpeechOutput,
        failures: StageFailures,
        released: asyncio.Event,
        *,
        filler_after_ms: float,
    ) -> None:
        """Create the apology and filler of one reply.

        Args:
            services: Has the prepared clips, the settings and the latency estimator.
            speech: Plays the clips.
            failures: The stages that currently fail for the reply's turn.
            released: Set when the reply may be heard. Nothing is played before.
            filler_after_ms: Maximum time, in ms, from the caller's last speech to audio of the reply; 0 for no filler.
        """
        self.apologised = False
        self.filler_started_at: float | None = None
        self.spoken_text = ""
        self._services = services
        self._settings = services.settings.conversation
        self._speech = speech
        self._failures = failures
        self._released = released
        self._step_changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._filler_after_s = filler_after_ms / 1000
        self._enabled = bool(services.phrases.fillers) and filler_after_ms > 0

    def begin(
        self, group: asyncio.TaskGroup, marks: Callable[[], Marks], answered_turn: Callable[[], CommittedTurn | None]
    ) -> None:
        """Start the tasks that play the apology and the filler if they are needed.

        Args:
            group: Owns the tasks.
            marks: Returns the stage times of the reply.
            answered_turn: Returns the turn that the reply answers; None if it answers no speech.
        """
        self._tasks = [
            group.create_task(self._apologise()),
            group.create_task(self._fill(marks, answered_turn)),
            group.create_task(self._break_silence()),
        ]

    def disable_filler(self) -> None:
        """Play no filler, because the caller has just heard something else (an apology)."""
        self._enabled = False

    def end(self) -> None:
        """Stop the tasks, because all of the reply was heard."""
        for task in self._tasks:
            task.cancel()

    def step_changed(self) -> None:
        """Predict again when the first audio will be ready, because a stage began or ended."""
        self._step_changed.set()

    async def _apologise(self) -> None:
        """Play the apology, once, if a stage keeps failing and nothing is audible."""
        await self._released.wait()
        while True:
            await self._failures.wait_until_active()
            await asyncio.sleep(self._settings.apology_after_ms / 1000)
            if self._failures.active and self._speech.drained():
                self.apologised = True
                self._play(self._services.phrases.apology)
                return

    async def _fill(self, marks: Callable[[], Marks], answered_turn: Callable[[], CommittedTurn | None]) -> None:
        """Play a filler, once, if the first audio is predicted to come later than `filler_after_ms`.

        `marks` returns the stage times of the reply. `answered_turn` returns the turn that the reply answers; a reply
        that answers no speech gets no filler.
        """
        await self._released.wait()
        turn, services = answered_turn(), self._services
        if turn is None or not self._enabled:
            return
        deadline = turn.speech_ended_at + self._filler_after_s
        while True:
            self._step_changed.clear()
            now = services.clock()
            due = services.latency_estimator.filler_due(marks(), deadline, now)
            if due <= now:
                break
            await _wait_for_change(self._step_changed, due - now)
        if self._speech.drained() and not self.apologised:
            self.filler_started_at = now
            services.metrics.filler(now - turn.speech_ended_at)
            self._play(services.phrases.next_filler())

    async def _break_silence(self) -> None:
        """Play a filler whenever the caller has heard nothing for `max_silence_s`, before or within the answer."""
        await self._released.wait()
        limit_s = self._settings.max_silence_s
        if not self._services.phrases.fillers or not limit_s:
            return
        clock = self._services.clock
        quiet_since = clock()
        while True:
            await asyncio.sleep(min(SILENCE_CHECK_S, limit_s))
            if not self._speech.drained():
                quiet_since = clock()
            elif clock() - quiet_since >= limit_s:
                self._play(self._services.phrases.next_filler())

    def _play(self, clip: HeldClip) -> None:
        self.spoken_text = f"{self.spoken_text} {clip.text}".strip()
        self._speech.play(clip)


async def _wait_for_change(step_changed: asyncio.Event, seconds: float) -> None:
    """Wait until `step_changed` is set, for at most `seconds` (which may be infinite)."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds if math.isfinite(seconds) else None):
            await step_changed.wait()
