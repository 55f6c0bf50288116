"""All sessions of one process: admission, the shared voice activity tick, and the prepared clips (held clips).

A session is an object, not a process. Admission is decided before a connection is upgraded to a WebSocket. A full
host refuses a call with a retry hint, so that the sessions that it already has do not become slower.
"""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from actors.listening.vad_ticker import VadTicker
from actors.session import Session
from actors.stages.ports import AudioOutput, Stages, TtsRequest
from actors.stages.retry import Backoff, attempts
from actors.stages.services import Services
from actors.stages.stage_watch import StageWatch
from actors.survival.session_keeper import SessionKeeper
from actors.survival.session_record import SessionOrigin
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.measuring.recent_load import RecentLoad
from rejoinder.core.reply.held_clips import HeldClip, HeldClips
from rejoinder.core.reply.segmenter import segment_of
from rejoinder.core.reply.spoken.units import SpeechSegment
from rejoinder.core.resilience.admission import Admission, AdmissionRefusal, FreePlaces
from rejoinder.core.resilience.redispatch import refused_part
from rejoinder.core.resilience.stage_admission import describe
from rejoinder.core.settings.settings import ConversationSettings
from rejoinder.core.wire.fields import Json
from rejoinder.core.wire.session import SessionConfig

logger = logging.getLogger(__name__)

# Interval between two measurements of the event loop's lag, in seconds.
LAG_PERIOD_S = 0.5
# The rate of new calls and the length of ended calls are measured over this many seconds.
CALLS_S = 20.0
# A host that is drained asks this many clients to move at once, and further ones after this many seconds. Each of them
# makes a handshake at another host.
MOVES, MOVE_EVERY_S = 5, 0.25
# Pause between two attempts to synthesize a prepared clip, in seconds. Text-to-speech may still be starting.
ATTEMPT_PAUSE_S = 1.0
# A host synthesizes up to this many prepared clips at a time, so that it starts sooner.
CLIPS_AT_ONCE = 4


class Host:
    """Runs all sessions of this process.

    Keep `run` running. Before a connection is upgraded, reserve a place with `seat`, which raises Overloaded if the
    host cannot accept a call. After the upgrade, call `converse`.
    """

    def __init__(
        self,
        services: Services,
        *,
        retries: int = 0,
        watch: StageWatch | None = None,
        keeper: SessionKeeper | None = None,
        free_elsewhere: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        """Create the host.

        Args:
            services: What the sessions of this process share.
            retries: How many more times the proxy in front sends a refused handshake, to this host or to others.
            watch: Knows which stages the host reaches; None if they are in this process.
            keeper: Keeps the sessions in the journal; None if there is no journal.
            free_elsewhere: Returns the number of free places of the other hosts; None if it is not known.
        """
        self.services = services
        self._watch = watch
        self.keeper = keeper
        self._free_elsewhere = free_elsewhere
        self._sessions: set[Session] = set()
        self._draining = asyncio.Event()
        self._retries = retries
        self._settings = services.settings.host
        self._admission = Admission(self._settings.max_sessions, self._settings.refuse_at_loop_lag_ms / 1000)
        self._stage_admission = services.stage_admission
        self._refusing: AdmissionRefusal | None = None
        self._seats = 0
        self._calls = RecentLoad(CALLS_S, wait_limit_s=0.0)
        self._free_places = FreePlaces()
        self._ticker = VadTicker(
            services.stages.vad, self._settings, services.settings.vad.call_timeout_s, services.metrics
        )

    @property
    def live(self) -> int:
        """Number of reserved places (seats), one per conversation."""
        return self._seats

    @property
    def arrivals_per_s(self) -> float:
        """New calls per second over the last CALLS_S, refused ones included.

        A refused handshake that the proxy may send again counts in part (`redispatch.refused_part`).
        """
        return self._calls.arrivals_per_s(self.services.clock())

    @property
    def ended_calls(self) -> tuple[int, float]:
        """Number of the calls that ended in the last CALLS_S, and the sum of their lengths in seconds."""
        counts = self._calls.counts(self.services.clock())
        return counts.ended, counts.service_s

    @property
    def loop_lag_s(self) -> float:
        """Delay of this process's event loop at the newest measurement, in seconds."""
        return self._admission.lag_s

    @property
    def late(self) -> bool:
        """True if the event loop has been late for so long that the host refuses new calls."""
        return self._admission.late

    @property
    def lost_stages(self) -> tuple[str, ...]:
        """Names of the stages that this host cannot reach. It refuses new calls until it reaches all stages again."""
        return self._watch.lost if self._watch else ()

    async def run(self) -> None:
        """Run the tasks that all sessions share, and measure the event loop's lag, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ticker.run())
            group.create_task(self.services.hedger.run())
            group.create_task(self.services.answer_cache.run())
            group.create_task(self._watch_lag())
            if self._watch:
                group.create_task(self._watch.run())
            if self.keeper:
                group.create_task(self.keeper.run())
                group.create_task(self._move_sessions())

    def drain(self) -> None:
        """Ask the clients to move to other hosts, because this one is to be stopped. Further calls do nothing.

        A client that does not know the request stays until its call ends.
        """
        self._draining.set()

    async def _move_sessions(self) -> None:
        """Ask a few clients at a time to move, while the host is drained or has lost a stage and others have places."""
        asked: weakref.WeakSet[Session] = weakref.WeakSet()
        while True:
            reason = "draining" if self._draining.is_set() else "stage_unreachable" if self.lost_stages else ""
            waiting = [session for session in self._sessions if reason and session not in asked]
            if waiting:
                free = MOVES if self._free_elsewhere is None else await self._free_elsewhere()
                for session in waiting[: min(free, MOVES)]:
                    asked.add(session)
                    session.ask_to_move(reason)
            await asyncio.sleep(MOVE_EVERY_S)

    @contextmanager
    def seat(self, *, resumed: bool = False) -> Iterator[None]:
        """Reserve a place (seat) for one conversation. Leaving the context manager frees the place.

        A call that is `resumed` only needs a free place: it comes before new calls, whatever the load is.

        Raises:
            Overloaded: All places are taken, the event loop is late by more than `refuse_at_loop_lag_ms`, a stage
                cannot be reached, or the stages have no capacity for a further call. The exception has a retry hint
                (`retry_after_s`).
        """
        began = self.services.clock()
        if refused := self._refused(resumed=resumed):
            self._calls.arrived(began, refused_part(self._retries))
            raise refused
        self._calls.arrived(began)
        if not self._seats:
            self._free_places.occupied(began)
        self._seats += 1
        if self._stage_admission:
            self._stage_admission.entered(began)
        self.services.metrics.session_opened()
        try:
            yield
        finally:
            now = self.services.clock()
            self._seats -= 1
            self._calls.ended(now - began, now)
            self._free_places.ended(now)
            if self._stage_admission:
                self._stage_admission.left(now)
            self.services.metrics.session_closed(now - began)

    def _refused(self, *, resumed: bool) -> Overloaded | None:
        """Return the error with which a further call is refused, None if it is admitted. Count and log the refusal."""
        reason = self._admission.refusal(self._seats, resumed=resumed)
        retry_after_s = self._settings.retry_after_s
        message, resource = "", "loop"
        if reason is AdmissionRefusal.FULL:
            message, resource = f"All {self._settings.max_sessions} sessions of this host are taken.", "sessions"
            retry_after_s = max(retry_after_s, self._wait_s())
        elif reason is AdmissionRefusal.LATE:
            message = f"This host is {self.loop_lag_s * 1000:.0f} ms late."
        elif self.lost_stages:
            reason, resource = AdmissionRefusal.UNREACHABLE, self.lost_stages[0]
            message = f"This host cannot reach {' and '.join(self.lost_stages)}."
        elif (
            self._stage_admission and not resumed and (refusal := self._stage_admission.refusal(self.services.clock()))
        ):
            reason, retry_after_s = refusal.limit, refusal.retry_after_s
            message, resource = describe(refusal), refusal.stage or "stages"
        if reason is not self._refusing:
            state = "calls are admitted again." if reason is None else f"calls are refused ({reason.value}): {message}"
            logger.warning("%s", state)
            self._refusing = reason
        if reason is None:
            return None
        self.services.metrics.refused(reason.value)
        remedy = f"Try again in {math.ceil(retry_after_s)} s."
        return Overloaded(message, remedy, retry_after_s=retry_after_s, resource=resource)

    def _wait_s(self) -> float:
        """Return the expected seconds until this host or another one that a handshake is sent to has a free place."""
        hosts = self._stage_admission.hosts if self._stage_admission else 1
        return self._free_places.wait_s(self.services.clock()) / min(hosts, 1 + self._retries)

    @asynccontextmanager
    async def converse(
        self,
        key: str,
        send: Callable[[Json], None],
        config: SessionConfig | str,
        tenant: str = "",
        *,
        owner: str = "",
        origin: SessionOrigin | None = None,
        output: AudioOutput | None = None,
    ) -> AsyncIterator[Session]:
        """Yield a running session. Leaving the context manager stops everything that the session started.

        An exception of the `async with` block, or of a task of the session, is raised as it is, without an exception
        group around it.

        Args:
            key: Makes the session's ids unique.
            send: Called with each server event. It must not block.
            config: The configuration to start with, or only the model name that the session reports.
            tenant: Digest of the API key (`answer_cache.tenant_of`). Sessions of one tenant share cached answers.
            owner: Digest of the API key that opens the session; "" if the host has no keys.
            origin: What the session goes on with (`SessionKeeper.claim`); None for a new one.
            output: Plays the audio of replies in real time; None if the client does, which gets it in events.
        """
        record = self.keeper.record(key, origin, owner=owner) if self.keeper else None
        async with Session.open(
            key,
            services=self.services,
            send=send,
            config=SessionConfig(model=config) if isinstance(config, str) else config,
            wake_ticker=self._ticker.wake,
            tenant=tenant,
            record=record,
            output=output,
        ) as session:
            self._join(session)
            try:
                yield session
            finally:
                self._leave(session)

    def _join(self, session: Session) -> None:
        self._ticker.join(session)
        self._sessions.add(session)
        if self.keeper and session.record:
            self.keeper.attach(session.record)

    def _leave(self, session: Session) -> None:
        self._ticker.leave(session)
        self._sessions.discard(session)
        if self.keeper and session.record:
            self.keeper.detach(session.record)

    async def _watch_lag(self) -> None:
        while True:
            due = self.services.clock() + LAG_PERIOD_S
            await asyncio.sleep(LAG_PERIOD_S)
            now = self.services.clock()
            self._admission.note(max(0.0, now - due))
            if self._stage_admission:
                self._stage_admission.tick(now)


async def synthesize_held_clips(
    stages: Stages,
    settings: ConversationSettings,
    max_attempts: int = 60,
    *,
    language: str = "en",
    lead_ins: tuple[str, ...] = (),
    slots: int = 1,
) -> HeldClips:
    """Synthesize and return the prepared clips (held clips) of a host. Call it once, before the first conversation.

    Args:
        stages: Only the port `tts` is used.
        settings: Has the texts: apology, fillers, the sentences of failed replies, set phrases, openings and greeting.
        max_attempts: Maximum number of attempts per text, with a pause of one second between them.
        language: Two-letter code of the language that the voice speaks.
        lead_ins: Phrases that are said while a tool runs.
        slots: Number of requests that a replica of text-to-speech serves at a time. Clips use half of them at most. If
            clips waited for a slot, the admission would take the stage for overloaded.

    Raises:
        BackendError: A text could not be synthesized.
    """
    fillers = settings.fillers if settings.filler_after_ms else ()
    openings = (opening.say for opening in settings.openings)
    endings = (settings.failure, settings.no_answer, settings.declined, settings.bridge)
    others = (*endings, *lead_ins, *settings.phrases, *openings, *([settings.greeting] if settings.greeting else []))
    texts = dict.fromkeys((settings.apology, *fillers, *others))
    free = asyncio.Semaphore(max(1, min(CLIPS_AT_ONCE, slots // 2)))

    async def hold(text: str) -> HeldClip:
        async with free:
            return await _hold(stages, segment_of(text, language), text, max_attempts)

    try:
        async with asyncio.TaskGroup() as group:
            held = {text: group.create_task(hold(text)) for text in texts}
    except ExceptionGroup as faults:
        raise faults.exceptions[0] from None
    return HeldClips(
        held[settings.apology].result(),
        tuple(held[text].result() for text in fillers),
        tuple(held[text].result() for text in others),
    )


async def _hold(stages: Stages, said: SpeechSegment, text: str, max_attempts: int) -> HeldClip:
    pause = Backoff(ATTEMPT_PAUSE_S, longest_s=ATTEMPT_PAUSE_S)
    try:
        async for attempt in attempts("tts", lambda _: None, max_attempts=max_attempts, pause=pause):
            with attempt:
                async with stages.tts.open(TtsRequest(said.spoken)) as chunks:
                    pcm = b"".join([chunk async for chunk in chunks])
    except BackendError as fault:
        raise BackendError(f"the phrase {text!r} could not be synthesized: {fault}", stage="tts") from fault
    return HeldClip(text, pcm)
