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
        voice: SpeechOutput,
        trouble: StageFailures,
        go: asyncio.Event,
        *,
        filler_after_ms: float,
    ) -> None:
        self.apologised = False
        self.filler_at: float | None = None
        """When a filler began."""
        self.said = ""
        """The words of what was played: a listener's microphone may bring them back."""
        self._services = services
        self._settings = services.settings.conversation
        self._voice = voice
        self._trouble = trouble
        self._go = go
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._filler_after_s = filler_after_ms / 1000
        self._fills = bool(services.phrases.fillers) and filler_after_ms > 0

    def begin(
        self, group: asyncio.TaskGroup, marks: Callable[[], Marks], answered: Callable[[], CommittedTurn | None]
    ) -> None:
        """Watch the reply: `marks` has the steps to its answer, `answered` the turn that it answers."""
        self._tasks = [group.create_task(self._apologise()), group.create_task(self._fill(marks, answered))]

    def no_filler(self) -> None:
        """The caller has just heard something else of ours (an apology)."""
        self._fills = False

    def end(self) -> None:
        """All was said."""
        for task in self._tasks:
            task.cancel()

    def moved(self) -> None:
        """A step towards the answer began or ended."""
        self._moved.set()

    async def _apologise(self) -> None:
        """Once a reply: if a stage fails and the listener hears nothing for a while, say so."""
        await self._go.wait()
        while True:
            await self._trouble.wait_until_active()
            await asyncio.sleep(self._settings.apology_after_ms / 1000)
            if self._trouble.active and self._voice.dry():
                self.apologised = True
                self._play(self._services.phrases.apology)
                return

    async def _fill(self, marks: Callable[[], Marks], answered: Callable[[], CommittedTurn | None]) -> None:
        """Once a reply: if its first audio is predicted to come later than `filler_after_ms` after the caller's last
        speech, play a filler. Where nobody spoke nobody waits.
        """
        await self._go.wait()
        turn, services = answered(), self._services
        if turn is None or not self._fills:
            return
        deadline = turn.began + self._filler_after_s
        while True:
            self._moved.clear()
            now = services.clock()
            due = services.foresight.filler_due(marks(), deadline, now)
            if due <= now:
                break
            await _first_of(self._moved, due - now)
        if self._voice.dry() and not self.apologised:
            self.filler_at = now
            services.metrics.filler(now - turn.began)
            self._play(services.phrases.next_filler())

    def _play(self, clip: HeldClip) -> None:
        self.said = f"{self.said} {clip.text}".strip()
        self._voice.play(clip)


async def _first_of(moved: asyncio.Event, seconds: float) -> None:
    """Until something moves, or for so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds if math.isfinite(seconds) else None):
            await moved.wait()
