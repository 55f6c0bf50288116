"""Test scenario: a host in one process with fake stages, and a test caller who sends audio to it.

The caller sends in real time of the event loop's clock, which in most tests is virtual.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from actors.host import Host
from actors.session import Session
from actors.stages.ports import AnswerCachePort, NoiseSuppressor, Stages, Tracer
from actors.stages.services import Services
from actors.stages.stage_watch import StageWatch
from actors.stages.tool_servers import NO_SERVERS, ToolServers
from actors.survival.session_keeper import SessionKeeper
from actors.survival.snapshot_store import LocalSnapshots, SnapshotStore
from rejoinder.core.reply.held_clips import HeldClip, HeldClips
from rejoinder.core.resilience.stage_admission import StageAdmission
from rejoinder.core.settings.settings import Settings
from rejoinder.core.survival.journal_table import JournalTable
from rejoinder.core.wire import client
from rejoinder.core.wire.session import SessionConfig
from tests.actors.fakes import CountingMetrics, LoudnessVad, ScriptedStt, ScriptedTurn, SilentJournal, ToneTts, WordyLlm
from tests.actors.wire_rules import Wire

FRAME_S = 0.02
_TONE = (np.sin(np.arange(320) * 0.2) * 8000).astype("<i2").tobytes()
# 24 dB quieter than _TONE: a dip that the fake voice activity detection still takes for speech.
_MURMUR = (np.sin(np.arange(320) * 0.2) * 505).astype("<i2").tobytes()
_HUSH = bytes(640)
APOLOGY_PCM = _TONE * 50
# Audio of the sentences at the end of failed replies: 1.5 s of a tone that is quieter than the apology's.
ENDING_PCM = _MURMUR * 75

TABLES = Path(__file__).with_name("tables")
WORDS_DECIDE = str(TABLES / "words_decide.json")
"""Table in which a transcript that looks complete ends the turn. Otherwise the turn detector decides."""
SOUND_DECIDES = str(TABLES / "sound_decides.json")
"""Table in which the turn detector decides alone: its probability is that of the end of the turn."""


def with_table(settings: Settings) -> Settings:
    """Return the settings with the end-of-turn table WORDS_DECIDE, unless they name a table.

    The shipped table also weighs prosody, which the fake speech lacks.
    """
    table = settings.endpointing.table or WORDS_DECIDE
    return settings.model_copy(update={"endpointing": settings.endpointing.model_copy(update={"table": table})})


@dataclass
class Play:
    """Test scenario: the settings and the fake stages. `open` and `call` run a host with them."""

    settings: Settings = field(default_factory=Settings)
    vad: LoudnessVad = field(default_factory=LoudnessVad)
    turn: ScriptedTurn = field(default_factory=ScriptedTurn)
    stt: ScriptedStt = field(default_factory=ScriptedStt)
    llm: WordyLlm = field(default_factory=WordyLlm)
    backup: WordyLlm | None = None
    tts: ToneTts = field(default_factory=ToneTts)
    metrics: CountingMetrics = field(default_factory=CountingMetrics)
    apology: bytes = APOLOGY_PCM
    suppressor: Callable[[], NoiseSuppressor] | None = None
    answers: AnswerCachePort | None = None
    fillers: tuple[HeldClip, ...] = ()
    phrases: tuple[HeldClip, ...] = ()
    stage_admission: StageAdmission | None = None
    retries: int = 0
    tool_servers: ToolServers = NO_SERVERS
    watch: StageWatch | None = None
    tracer: Tracer | None = None
    table: JournalTable | None = None
    """Table in which the hosts keep their sessions; None for no journal. Several plays may share one."""
    store: SnapshotStore | None = None
    """Store in the place of one over `table`."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Host]:
        """Yield a running host."""
        clock = asyncio.get_running_loop().time
        asked = (self.vad, self.turn, self.stt, self.llm, self.tts)
        stages = Stages(*asked, {"llm": "fake"}, self.answers, self.suppressor, self.backup)
        spoken = self.settings.conversation
        endings = (spoken.failure, spoken.no_answer, spoken.declined, spoken.bridge)
        others = (*self.phrases, *(HeldClip(text, ENDING_PCM) for text in endings))
        phrases = HeldClips(HeldClip(spoken.apology, self.apology), self.fillers, others)
        services = Services.over(
            stages,
            settings=with_table(self.settings),
            phrases=phrases,
            metrics=self.metrics,
            journal=SilentJournal(),
            clock=clock,
            stage_admission=self.stage_admission,
            tool_servers=self.tool_servers,
            tracer=self.tracer,
        )
        host = Host(services, retries=self.retries, keeper=self._keeper(clock), watch=self.watch)
        running = asyncio.create_task(host.run())
        try:
            yield host
        finally:
            running.cancel()
            await asyncio.wait({running})

    def _keeper(self, clock: Callable[[], float]) -> SessionKeeper | None:
        if self.table is None and self.store is None:
            return None
        store = self.store or LocalSnapshots(self.settings.journal, self.table, holder="host")
        return SessionKeeper(
            store, self.metrics, clock, session_s=3600, keep_s=120, signing_key="key", wall_clock=clock
        )

    @asynccontextmanager
    async def call(self, config: SessionConfig | str = "rejoinder") -> AsyncIterator[Caller]:
        """Run a host and yield the caller of one conversation, which begins with `config`.

        At the end, check all events with `wire_rules`.
        """
        async with self.open() as host:
            caller = Caller()
            async with host.converse("test", caller.take, config) as session:
                caller.session = session
                try:
                    yield caller
                finally:
                    caller.silent = True
            caller.check()


class Caller:
    """A test caller who sends 20 ms frames of audio and stores every server event with its time."""

    session: Session

    def __init__(self) -> None:
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.silent = False
        self.listeners: list[Callable[[dict[str, Any], float], None]] = []
        """Functions that are called with every server event and the time of its arrival."""
        self._news = asyncio.Event()
        self._ids = itertools.count(1)

    def take(self, event: dict[str, Any]) -> None:
        """Store a server event; the session calls this for each event."""
        if self.silent:
            return
        now = asyncio.get_running_loop().time()
        self.events.append((now, event))
        self._news.set()
        for listener in self.listeners:
            listener(event, now)

    def check(self) -> None:
        """Check with `wire_rules` that every event has a correct shape and came at a permitted position."""
        wire = Wire()
        for _, event in self.events:
            wire.take(event)
        wire.finish()

    async def speak(self, seconds: float) -> None:
        """Send loud audio in real time."""
        await self._send(_TONE, seconds)

    async def murmur(self, seconds: float) -> None:
        """Send quiet speech in real time, 24 dB below that of `speak`, which makes a dip."""
        await self._send(_MURMUR, seconds)

    async def hush(self, seconds: float) -> None:
        """Send silence in real time."""
        await self._send(_HUSH, seconds)

    def pour(self, *seconds: float) -> None:
        """Send speech and silence alternately, for these seconds each, in one message and at once."""
        frames = [(_HUSH if number % 2 else _TONE) * round(length / FRAME_S) for number, length in enumerate(seconds)]
        self.session.append_audio(b"".join(frames))

    async def _send(self, frame: bytes, seconds: float) -> None:
        for _ in range(round(seconds / FRAME_S)):
            await asyncio.sleep(FRAME_S)
            self.session.append_audio(frame)

    async def ask(self, **event: Any) -> str:
        """Send a client event as JSON, as a transport does, and return its id."""
        event_id = f"c{next(self._ids)}"
        await self.throw(json.dumps({"event_id": event_id} | event))
        return event_id

    async def throw(self, message: str | bytes) -> None:
        """Pass any message to the session, as a transport does."""
        try:
            event = client.parse(message)
        except client.MalformedEvent as fault:
            self.session.reject(fault, fault.client_event_id)
            return
        if isinstance(event, client.AppendAudio):
            # A transport's decoder passes on whole samples only.
            self.session.append_audio(event.audio[: len(event.audio) // 2 * 2])
        else:
            await self.session.submit(event)

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait for the `count`-th event of a type, for at most two minutes, and return it."""
        async with asyncio.timeout(120):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(kind)[count - 1]

    async def listen(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Send silence, as a real caller does, until the `count`-th event of a type arrives, and return it."""
        hush = asyncio.create_task(self.hush(120))
        try:
            return await self.until(kind, count)
        finally:
            hush.cancel()

    async def say(self, seconds: float = 1.0) -> dict[str, Any]:
        """Speak, send silence until the reply has ended, and return its response.done."""
        heard = len(self.of("response.done"))
        await self.speak(seconds)
        return await self.listen("response.done", heard + 1)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the received events of a type, in order."""
        return [event for _, event in self.events if event["type"] == kind]

    def at(self, kind: str, count: int = 1) -> float:
        """Return the time, in seconds of the event loop's clock, at which the `count`-th event of a type arrived."""
        return [at for at, event in self.events if event["type"] == kind][count - 1]

    @property
    def types(self) -> list[str]:
        """The types of the received events in order. Equal types in a row appear once."""
        return [kind for kind, _ in itertools.groupby(event["type"] for _, event in self.events)]

    @property
    def audio(self) -> bytes:
        """All audio that was sent to the caller, as bytes in the output format."""
        return b"".join(event["delta"] for event in self.of("response.output_audio.delta"))

    @property
    def transcript(self) -> str:
        """All transcript text that was sent to the caller, apologies and fillers included."""
        return "".join(event["delta"] for event in self.of("response.output_audio_transcript.delta"))
