"""What a caller hears of a reply before its answer: nothing, as a rule; an apology if a stage fails; a filler if the
answer is predicted to be late. Both are held clips: no engine is asked, and they are no part of the answer.
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


class Fillers:
    """One reply's; before `go` it plays nothing. Its tasks live in the reply's group, from `begin` to `end`."""

    def __init__(
        self,
        services: Services,
        speech: SpeechOutput,
        failures: StageFailures,
        released: asyncio.Event,
        *,
        filler_after_ms: float,
    ) -> None:
        self.apologised = False
        self.filler_started_at: float | None = None
        """When a filler began."""
        self.spoken_text = ""
        """The words of what was played: a listener's microphone may bring them back."""
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
        """Watch the reply: `marks` has the steps to its answer, `answered` the turn that it answers."""
        self._tasks = [group.create_task(self._apologise()), group.create_task(self._fill(marks, answered_turn))]

    def disable_filler(self) -> None:
        """The caller has just heard something else of ours (an apology)."""
        self._enabled = False

    def end(self) -> None:
        """All was said."""
        for task in self._tasks:
            task.cancel()

    def step_changed(self) -> None:
        """A step towards the answer began or ended."""
        self._step_changed.set()

    async def _apologise(self) -> None:
        """Once a reply: if a stage fails and the listener hears nothing for a while, say so."""
        await self._released.wait()
        while True:
            await self._failures.wait_until_active()
            await asyncio.sleep(self._settings.apology_after_ms / 1000)
            if self._failures.active and self._speech.drained():
                self.apologised = True
                self._play(self._services.phrases.apology)
                return

    async def _fill(self, marks: Callable[[], Marks], answered_turn: Callable[[], CommittedTurn | None]) -> None:
        """Once a reply: if its first audio is predicted to come later than `filler_after_ms` after the caller's last
        speech, play a filler. Where nobody spoke nobody waits.
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

    def _play(self, clip: HeldClip) -> None:
        self.spoken_text = f"{self.spoken_text} {clip.text}".strip()
        self._speech.play(clip)


async def _wait_for_change(step_changed: asyncio.Event, seconds: float) -> None:
    """Until something moves, or for so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds if math.isfinite(seconds) else None):
            await step_changed.wait()
