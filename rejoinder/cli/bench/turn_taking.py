"""`rejoinder bench turn-taking`: the real session and the real engines in conversations of the turn-taking corpus.

Each event is a conversation of its own. The caller's microphone sends 20 ms frames all the time. The caller's
loudspeaker stops when the server reports speech, as OpenAI's clients do, and plays what comes later. Idle time is
skipped (`deployments/local/skipping_clock.py`), unless the run is in real time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from actors.host import Host
from actors.session import Session
from deployments.local.real_engines import ScriptedLlm, real_host
from deployments.local.skipping_clock import Pace, run_skipping
from loadtest.benches.turn_taking import (
    EventOutcome,
    figures,
    outcome_of,
    report,
    selected,
    sentences,
)
from loadtest.callers.loudspeaker import Loudspeaker
from loadtest.turn_corpus import sounds
from loadtest.turn_corpus.audio import ROOM_DBFS, EventAudio, audio, clip_text, missing
from loadtest.turn_corpus.event import CorpusEvent, Expected, Part, Scene, Split, order_of
from loadtest.turn_corpus.recipe import events
from loadtest.turn_corpus.voices import BY_NAME
from rejoinder.cli.bench.turn_tables import tables
from rejoinder.core.audio.pcm import STT_RATE, float_to_pcm16
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import LlmSettings, Settings
from rejoinder.core.turns.endpointing import AUTO, MAX_WAIT_S
from rejoinder.core.wire import client
from rejoinder.core.wire.fields import Json

FRAME_S = 0.02
FRAME_SAMPLES = round(FRAME_S * STT_RATE)

SETUP_TEXT = "Tell me about the history of London."
SETUP_VOICE = "piper-joe"
LONG_REPLY = (
    "London began as a small Roman town on the river Thames. It grew slowly after the first bridge was built there. "
    "Later it became the largest port of the country, and ships came from all over the world. In the year sixteen "
    "sixty six a great fire destroyed most of the old wooden houses. The city was built again, this time with brick "
    "and stone. In the next century there were new squares, parks and theaters. The first underground railway opened "
    "in eighteen sixty three. Today about nine million people live there, and many more come to visit every year."
)
"""Text of the reply over which an event is played. Its audio lasts about 30 s."""
SHORT_REPLY = "Of course."

FIRST_S, SPREAD_S = 1.5, 2.0
"""An event over a reply begins FIRST_S seconds after the reply, plus up to SPREAD_S, depending on the event's id."""

SETUP_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 6.0
"""Longest wait for an answer, in seconds after the end of the caller's speech."""
REPORT_TIMEOUT_S = 4.0
"""Seconds in which the response must end after the caller has cancelled it."""
CHECK_S = 1.8
"""Seconds from the end of an event's sound to the check whether the reply still goes on."""


@dataclass(slots=True)
class HeardReply:
    """One response as the caller hears it.

    Attributes:
        speaker: Simulated loudspeaker that plays the response.
        audible_at: Time on the event loop's clock at which the first audible sample is played; None if none is.
        done: True after `response.done`.
    """

    speaker: Loudspeaker = field(default_factory=Loudspeaker)
    audible_at: float | None = None
    done: bool = False


class BenchCaller:
    """The caller of one conversation: sends audio, and hears the replies. Times are on the event loop's clock, in s.

    Attributes:
        session: The session; set when it is open.
        replies: The responses by id, in order.
        commits: Times at which the server ended a turn.
        heard: Transcripts of the caller's turns.
        stages_ms: Stage times of the newest response that has ended, in milliseconds, by stage.
    """

    session: Session

    def __init__(self, clock: Callable[[], float]) -> None:
        """Create a caller with the event loop's clock."""
        self.replies: dict[str, HeardReply] = {}
        self.commits: list[float] = []
        self.heard: list[str] = []
        self.stages_ms: dict[str, float] = {}
        self._clock = clock
        self._due = clock()
        self._room = sounds.room(2.0, ROOM_DBFS, 1)
        self._frames = 0

    def receive(self, event: Json) -> None:
        """Process a server event: play audio, stop the loudspeaker when speech is reported, or record a fact."""
        now = self._clock()
        match event["type"]:
            case "response.created":
                self.replies[event["response"]["id"]] = HeardReply()
            case "response.output_audio.delta":
                reply = self.replies[event["response_id"]]
                reply.speaker.receive(event["delta"], now)
                if reply.audible_at is None:
                    reply.audible_at = reply.speaker.audible_at()
            case "response.done":
                self.replies[event["response"]["id"]].done = True
                self.stages_ms = (event.get("rejoinder") or {}).get("stages_ms") or {}
            case "input_audio_buffer.speech_started":
                self._silence(now)
            case "input_audio_buffer.committed":
                self.commits.append(now)
            case "conversation.item.input_audio_transcription.completed":
                self.heard.append(event["transcript"])

    def _silence(self, now: float) -> None:
        for reply in self.replies.values():
            if reply.speaker.playing(now):
                reply.speaker.flush(now)
                if reply.audible_at is not None and reply.audible_at >= now:
                    reply.audible_at = None  # the first audible sample was flushed before it was played

    def first_audible(self, after: float) -> float | None:
        """Return the earliest time, from `after` until now, at which a reply became audible; None if there is none."""
        now = self._clock()
        times = [reply.audible_at for reply in self.replies.values() if reply.audible_at is not None]
        return min((at for at in times if after <= at <= now), default=None)

    async def say(self, pcm: npt.NDArray[np.int16], until: Callable[[], bool] = lambda: False) -> float:
        """Send 16 kHz audio at the pace of the loop's clock, until it ends or `until` returns True.

        Return the time of the first sample.
        """
        began = self._due
        for start in range(0, pcm.size, FRAME_SAMPLES):
            frame = pcm[start : start + FRAME_SAMPLES]
            await self._send(np.pad(frame, (0, FRAME_SAMPLES - frame.size)).astype("<i2").tobytes())
            if until():
                break
        return began

    async def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Send room noise for `seconds`, or until `until` returns True. Return the last result of `until`."""
        for _ in range(round(seconds / FRAME_S)):
            if until():
                return True
            start = self._frames * FRAME_SAMPLES % self._room.size
            self._frames += 1
            await self._send(float_to_pcm16(np.resize(self._room[start:], FRAME_SAMPLES)))
        return until()

    async def _send(self, frame: bytes) -> None:
        """Wait until the end of the next 20 ms, then send `frame`: a microphone sends a frame when it is complete."""
        self._due += FRAME_S
        await asyncio.sleep(max(0.0, self._due - self._clock()))
        self.session.append_audio(frame)


class TurnTakingBench:
    """Plays events to one host, one after the other."""

    def __init__(self, host: Host, llm: ScriptedLlm, eagerness: str, clock: Callable[[], float]) -> None:
        """Create a bench over a running host.

        Args:
            host: The host that runs the conversations.
            llm: The host's language model port, whose answers the bench replaces by a script.
            eagerness: Eagerness of the sessions' semantic_vad: "low", "medium", "high" or "auto".
            clock: Returns the event loop's time in seconds.
        """
        self._host = host
        self._llm = llm
        self._eagerness = eagerness
        self._clock = clock
        self._calls = 0

    async def play(self, event: CorpusEvent) -> EventOutcome:
        """Have a conversation in which one event of the corpus is played, and return what the agent did."""
        made = audio(event)
        async with self._call() as caller:
            if event.scene is Scene.LISTENING:
                return await self._listening(caller, event, made)
            self._llm.script = LONG_REPLY if event.scene is Scene.OVER_REPLY else SHORT_REPLY
            reply = await self._asked(caller, event)
            if reply is None:
                return outcome_of(event, fault="the reply before the event did not come")
            if event.scene is Scene.OVER_REPLY:
                return await self._over_reply(caller, event, made, reply)
            return await self._idle(caller, event, made, reply)

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[BenchCaller]:
        self._llm.script = ""
        self._calls += 1
        caller = BenchCaller(self._clock)
        detection = {"type": "semantic_vad", "eagerness": self._eagerness}
        audio_input = {"turn_detection": detection, "transcription": {"model": "rejoinder"}}
        update = client.parse(
            json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": {"input": audio_input}}})
        )
        assert isinstance(update, client.UpdateSession)
        with self._host.seat():
            async with self._host.converse(f"{self._calls:012x}", caller.receive, "rejoinder") as session:
                caller.session = session
                await session.configure(update)
                yield caller

    async def _listening(self, caller: BenchCaller, event: CorpusEvent, made: EventAudio) -> EventOutcome:
        if event.asked:
            content = [{"type": "output_text", "text": event.asked}]
            item = {"type": "message", "role": "assistant", "content": content}
            await caller.session.submit(client.parse(json.dumps({"type": "conversation.item.create", "item": item})))
        await caller.wait(0.3)
        began = await caller.say(made.pcm, lambda: caller.first_audible(0.0) is not None)
        ended = began + made.speech_end_s
        await caller.wait(
            max(0.0, ended + ANSWER_TIMEOUT_S - self._clock()), lambda: caller.first_audible(0.0) is not None
        )
        audible = caller.first_audible(0.0)
        if audible is not None and not any(reply.done for reply in caller.replies.values()):
            # The report of the stage times comes with the end of the response.
            await caller.session.submit(client.parse(json.dumps({"type": "response.cancel"})))
            await caller.wait(REPORT_TIMEOUT_S, lambda: bool(caller.stages_ms))
        texts = " ".join(part.text or clip_text(part.clip) for part in event.parts)
        return outcome_of(
            event,
            answered_s=None if audible is None else round(audible - ended, 3),
            commits=sum(at < ended for at in caller.commits),
            heard=tuple(caller.heard),
            sentences=sentences(texts),
            stages_ms=caller.stages_ms,
        )

    async def _asked(self, caller: BenchCaller, event: CorpusEvent) -> HeardReply | None:
        """Ask a question to get a reply over which the event can be played.

        Return the reply as soon as it is audible; None if none becomes audible within SETUP_TIMEOUT_S seconds.
        """
        own = event.voice in BY_NAME and event.kind != "side-speech"
        question = CorpusEvent(
            f"setup/{event.voice if own else SETUP_VOICE}",
            kind="setup",
            voice=event.voice if own else SETUP_VOICE,
            scene=Scene.LISTENING,
            expected=Expected.ANSWER,
            parts=(Part(SETUP_TEXT),),
        )
        made = audio(question)
        await caller.wait(0.3)
        began = await caller.say(made.pcm, lambda: caller.first_audible(0.0) is not None)
        await caller.wait(SETUP_TIMEOUT_S, lambda: caller.first_audible(began) is not None)
        return next((reply for reply in caller.replies.values() if reply.audible_at is not None), None)

    async def _over_reply(
        self, caller: BenchCaller, event: CorpusEvent, made: EventAudio, reply: HeardReply
    ) -> EventOutcome:
        await caller.wait(FIRST_S + order_of(event.id) % 1000 / 1000 * SPREAD_S)
        before = len(caller.heard)
        began = await caller.say(made.pcm)
        onset, check = began + made.speech_start_s, began + made.speech_end_s + CHECK_S
        await caller.wait(max(0.0, check - self._clock()))
        went_on = reply.speaker.ends_at > check
        chunks = reply.speaker.heard()
        last = max((chunk.at + len(chunk.pcm) / 48_000 for chunk in chunks), default=onset)
        return outcome_of(
            event,
            went_on=went_on,
            yield_s=None if went_on else round(max(0.0, last - onset), 3),
            heard=tuple(caller.heard[before:]),
        )

    async def _idle(self, caller: BenchCaller, event: CorpusEvent, made: EventAudio, reply: HeardReply) -> EventOutcome:
        await caller.wait(SETUP_TIMEOUT_S, lambda: reply.done and not reply.speaker.playing(self._clock()))
        await caller.wait(2.0)
        before, heard = self._clock(), len(caller.heard)
        began = await caller.say(made.pcm, lambda: caller.first_audible(before) is not None)
        await caller.wait(CHECK_S, lambda: caller.first_audible(before) is not None)
        audible = caller.first_audible(before)
        return outcome_of(
            event,
            answered_s=None if audible is None else round(audible - began - made.speech_end_s, 3),
            heard=tuple(caller.heard[heard:]),
        )


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of one run: the events to play, and how to play them.

    Attributes:
        split: A value of `Split`, or "all".
        eagerness: Eagerness of semantic_vad.
        only: Beginnings of ids or kinds, with commas; "" for all events.
        quick: True to play a subset in real time.
        pace: A value of `Pace`: what the clock follows while an engine runs.
        outcomes: File with one outcome per line (JSON). Events that it contains are not played again, and new outcomes
            are appended. None for no file.
        most: Maximum number of events to play in this run; 0 for no limit.
    """

    split: str = Split.HELD_OUT.value
    eagerness: str = AUTO
    only: str = ""
    quick: bool = False
    pace: str = Pace.REAL.value
    outcomes: Path | None = None
    most: int = 0

    def events(self) -> list[CorpusEvent]:
        """Return the selected events.

        Raises:
            ConfigError: An option is unknown, or no event is selected.
        """
        for value, known, name in (
            (self.pace, [each.value for each in Pace], "--clock"),
            (self.eagerness, list(MAX_WAIT_S), "--eagerness"),
            (self.split, [*(each.value for each in Split), "all"], "--split"),
        ):
            if value not in known:
                raise ConfigError(f"unknown: {value}.", f"Use {', '.join(known)}.", field=name)
        splits = [each for each in Split if self.split in (each.value, "all")]
        chosen = [event for each in splits for event in selected(events(), each, quick=self.quick)]
        starts = tuple(word.strip() for word in self.only.split(",") if word.strip())
        found = [each for each in chosen if not starts or each.id.startswith(starts) or each.kind.startswith(starts)]
        if not found:
            raise ConfigError("no event has this id or kind.", "Its beginning suffices.", field="--only")
        return found


def run(options: BenchOptions, console: Console) -> tuple[bool, dict[str, Any]]:
    """Play the selected events and print the tables. Return (whether all bars are met, object for `--json`)."""
    chosen = options.events()
    absent = missing(chosen)
    for name, group in absent.items():
        console.print(f"Left out: {len(group)} events, because {name} is not installed.", style="yellow")
    gone = {event.id for group in absent.values() for event in group}
    known = _known(options.outcomes)
    new = [event for event in chosen if event.id not in gone and event.id not in known]
    began = time.monotonic()
    with Progress(console=console, transient=True) as bar:
        playing = new[: options.most or None]
        task = bar.add_task(f"{len(playing)} events", total=len(playing))

        def keep(outcome: EventOutcome) -> None:
            bar.advance(task)
            known[outcome.event] = outcome
            if options.outcomes:
                with options.outcomes.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")

        if playing:
            measure(playing, options.eagerness, None if options.quick else Pace(options.pace), keep)
    outcomes = [known[event.id] for event in chosen if event.id in known]
    total = figures(outcomes)
    for table in tables(outcomes, total):
        console.print(table)
    console.print(f"{len(playing)} events in {time.monotonic() - began:.0f} s, {len(outcomes)} in all.")
    console.print(f"{total.unplayed} could not be played, {len(new) - len(playing)} are left.")
    console.print("PASS" if total.holds else "FAIL: at least one bar is not met.")
    conditions = {"split": options.split, "eagerness": options.eagerness}
    conditions["clock"] = "real time" if options.quick else options.pace
    return total.holds, conditions | report(outcomes, {name: len(group) for name, group in absent.items()})


def _known(file: Path | None) -> dict[str, EventOutcome]:
    """Return the outcomes in `file` by event id; {} if there is no file."""
    if file is None or not file.exists():
        return {}
    found = [EventOutcome(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    return {outcome.event: outcome for outcome in found}


def measure(
    events: Sequence[CorpusEvent], eagerness: str, pace: Pace | None, keep: Callable[[EventOutcome], None]
) -> None:
    """Play events to the real system with its default settings.

    Args:
        events: What to play.
        eagerness: "low", "medium", "high" or "auto".
        pace: What the clock follows while an engine runs, if idle time is skipped. None: real time, nothing skipped.
        keep: Called with the outcome of each event.
    """
    # The engines share this process, so the language model must not lower its priority.
    settings = Settings(llm=LlmSettings(nice=0))

    async def play() -> None:
        clock = asyncio.get_running_loop().time
        async with real_host(settings, clock) as (host, llm):
            bench = TurnTakingBench(host, llm, eagerness, clock)
            for event in events:
                keep(await bench.play(event))

    if pace is None:
        asyncio.run(play())
    else:
        run_skipping(play(), pace)
