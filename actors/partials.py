"""Hearing while the caller speaks: guesses at the utterance so far, and the words on which two of them agree.

One guess is under way at a time, each takes the audio as it is when it starts, and the pause behind it grows with what
it took: so a loaded speech-to-text stage is asked less often by itself, and one that refuses is left alone for longer.
Nothing depends on a guess. The language model reads ahead what is likely (by a wrong word it only loses the reading);
and while a reply is paused, what was said over it is guessed at more often, since words end the reply.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actors.ear import Ear
from actors.policy import Policy
from actors.ports import Priority, SttJob
from actors.services import Services
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.transcripts import Agreement, agree

logger = logging.getLogger(__name__)


class Partials:
    """Of one session. `begin` with an utterance, `pause` at a soft end, `resume` when it was none, `end` with it."""

    def __init__(
        self,
        services: Services,
        ear: Ear,
        group: asyncio.TaskGroup,
        policy: Policy,
        grown: Callable[[str], None],
        guessed: Callable[[str, str], None],
    ) -> None:
        """`grown` gets the words that are likely whenever they change; `guessed`, while a reply waits for them, each
        guess and what is sure.
        """
        self._services = services
        self._settings = services.settings.partials
        self._reads_ahead = services.settings.llm.reads_ahead
        self._ear = ear
        self._group = group
        self._policy = policy
        self._grown = grown
        self._guessed = guessed
        self._awaited = False
        self._known = Agreement()
        self._tokens: tuple[int, ...] = ()
        self._start = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """The engine's own of the newest guess: the final transcript mostly begins with them."""
        return self._tokens

    def begin(self, start: int) -> None:
        """An utterance has begun; its audio is that from sample `start` on."""
        self.end()
        self._start = start
        self.resume()

    def attend(self) -> None:
        """A reply waits for the words of this utterance."""
        self._awaited = True
        self.pause()
        self.resume()

    def resume(self) -> None:
        """The caller goes on after a pause; what is sure of the utterance stays so."""
        wanted = self._awaited or (self._reads_ahead and self._policy.speculates)
        if self._settings.enabled and wanted and self._task is None:
            self._task = self._group.create_task(self._guess())

    def pause(self) -> None:
        """The caller has stopped: the final transcript goes first."""
        if self._task:
            self._task.cancel()
            self._task = None

    def end(self) -> None:
        """The utterance is over."""
        self.pause()
        self._known = Agreement()
        self._tokens = ()
        self._awaited = False

    async def _guess(self) -> None:
        """Guess again and again until cancelled."""
        every_ms = self._services.settings.barge_in.guess_every_ms if self._awaited else self._settings.every_ms
        every_s = every_ms / 1000
        pause_s = every_s
        while True:
            await asyncio.sleep(pause_s)
            began = self._services.clock()
            job = SttJob(self._ear.pcm(self._start, self._ear.received), Priority.PARTIAL, every_s, self._tokens)
            try:
                async with asyncio.timeout(self._services.settings.stt.call_timeout_s):
                    transcript = await self._services.stages.stt.transcribe(job)
            except (BackendError, Overloaded, TimeoutError):
                pause_s = min(2 * pause_s, self._settings.longest_pause_ms / 1000)
                self._services.metrics.partial("failed")
                continue
            except Exception:  # a bug in a stage must not cost the caller the session
                logger.exception("the speech-to-text port broke")
                self._services.metrics.error("internal", "stt")
                return
            took_s = self._services.clock() - began
            pause_s = max(every_s - took_s, took_s * (1 / self._settings.share - 1))
            self._services.metrics.partial("heard")
            self._tokens = transcript.tokens
            before, self._known = self._known, agree(self._known, transcript.text)
            if self._reads_ahead and self._known.likely != before.likely:
                self._grown(self._known.likely)
            if self._awaited:
                self._guessed(transcript.text, self._known.text)
