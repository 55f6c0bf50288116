"""The drafts bench finds no leak in Rejoinder's sessions in virtual time. It finds leaks in three broken variants.

A leak is audio or text of a discarded draft (speculative reply) that still reached the caller. Sessions, speculative
replies and speech output are Rejoinder's, with emulated engines. Only voice activity detection is replaced by a
loudness threshold, and the callers' speech is made of tones.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from actors.listening.end_of_turn import EndOfTurnRequest
from actors.replying.drafts import Draft, Drafts
from actors.replying.replies import Replies
from actors.session import Session
from deployments.engines.emulated import EmulatedStt, EmulatedTts
from deployments.llm import Llm
from deployments.local.in_process import DirectLlm, DirectStt, DirectTts
from loadtest.benches.drafts.caller import HesitantCaller
from loadtest.benches.drafts.evidence import NOTHING, Evidence, evidence
from loadtest.benches.drafts.run import SESSION
from loadtest.benches.drafts.script import script
from loadtest.benches.drafts.verdict import SETTINGS
from loadtest.scenario.utterances import FRAME_S, encode
from rejoinder.core.settings.settings import parse_settings
from rejoinder.core.wire import client
from rejoinder.core.wire.formats import AudioFormat, WireDecoder
from tests.actors.stage_play import Play
from tests.actors.virtual_time import run_virtual
from tests.loadtest.callers.scene import clip

CALLS, TURNS = 3, 8
LONGEST_S = TURNS * 20.0
SPEECH = encode([clip(f"{seconds:g}", seconds, 0.04, 0.04) for seconds in (1.1, 1.26, 1.5)], AudioFormat.PCM)


async def _hold(number: int, counts: Counter[str]) -> Evidence:
    settings = parse_settings(SETTINGS)
    play = Play(settings=settings)
    # Play is the fake host of the tests. Its scripted engines are replaced by the emulated engines of the bench.
    play.stt = DirectStt(EmulatedStt(settings))  # type: ignore[assignment]
    play.llm = DirectLlm(Llm(settings))  # type: ignore[assignment]
    play.tts = DirectTts(EmulatedTts(settings))  # type: ignore[assignment]
    turns = script(1, caller=number, turns=TURNS, hesitating=0.7, phrases=len(SPEECH.utterances))
    async with play.open() as host:
        caller = HesitantCaller(SPEECH, turns)
        clock = asyncio.get_running_loop().time

        def deliver(event: dict[str, Any]) -> None:
            caller.take(_encoded(event), clock())

        async with host.converse("test", deliver, "rejoinder") as session:
            send = _transport(session)
            await send(SESSION)
            while not caller.over and caller.now < LONGEST_S:
                await asyncio.sleep(FRAME_S)
                for message in caller.leaving(clock()):
                    await send(message)
            caller.hang_up()
    counts.update(play.metrics.counts)
    return evidence(caller, len(turns))


def _transport(session: Session) -> Callable[[bytes], Awaitable[None]]:
    """Return a function that parses a client's message and passes the audio or event in it to the session."""
    decode = WireDecoder(AudioFormat.PCM)

    async def send(message: bytes) -> None:
        event = client.parse(message)
        if isinstance(event, client.AppendAudio):
            session.append_audio(decode(event.audio))
        else:
            await session.submit(event)

    return send


def _encoded(event: dict[str, Any]) -> bytes:
    """Return a server event as JSON, with audio in base64, as a client receives it."""
    return orjson.dumps(event, default=lambda audio: base64.b64encode(audio).decode())


def run_calls() -> tuple[Evidence, Counter[str]]:
    """Run all calls in virtual time. Return the evidence from all calls together and the host's counters by name."""
    counts: Counter[str] = Counter()
    return sum((run_virtual(_hold(number, counts)) for number in range(CALLS)), NOTHING), counts


def test_no_audio_of_discarded_drafts_is_sent() -> None:
    """Every turn is answered. No audio of discarded speculative replies is sent, even if it is ready."""
    found, counts = run_calls()
    assert (found.leaks, found.misheard, found.faults) == ((), (), ())
    assert (found.turns, found.unanswered) == (CALLS * TURNS, 0)
    assert found.judged_s > found.turns
    assert counts["draft discarded"] >= found.hesitant / 2
    assert counts["draft discarded_ready"] > 0
    assert counts["draft begun"] == counts["draft kept"] + counts["draft discarded"]


def _opened_too_early(patch: pytest.MonkeyPatch) -> None:
    """Break the waiting: let sessions send a draft's audio as soon as it is ready, before the end of turn."""
    draft = Replies.draft

    def open_at_once(self: Replies, revision: int, hearing: EndOfTurnRequest) -> None:
        draft(self, revision, hearing)
        begun = self._drafts._draft
        if begun:
            begun.reply._released.set()

    patch.setattr(Replies, "draft", open_at_once)


def _never_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Break the discarding: if the caller speaks on, the draft is kept, and this outdated draft answers the turn."""
    begin = Drafts.begin

    def begin_once(self: Drafts, *args: Any, **named: Any) -> Draft | None:
        return None if self.drafting else begin(self, *args, **named)

    patch.setattr(Drafts, "begin", begin_once)
    patch.setattr(Drafts, "discard", lambda _: None)
    patch.setattr(Draft, "answers", lambda self, *_: not self.task.done())


def _let_out_late(patch: pytest.MonkeyPatch) -> None:
    """Break the cancellation: if the caller speaks on, the draft's audio is sent instead of discarded."""

    def release(self: Drafts) -> None:
        draft, self._draft = self._draft, None
        if draft:
            draft.reply._released.set()

    patch.setattr(Drafts, "discard", release)


@pytest.mark.parametrize("broken", [_opened_too_early, _never_forgotten, _let_out_late])
def test_a_broken_gate_is_detected_in_the_sound(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the product is broken in one of three ways, the bench finds over a second of audio of discarded drafts.

    The sound of each emulated reply has a mark that states how much speech it answers, so the bench can tell.
    """
    broken(monkeypatch)
    found, _ = run_calls()
    foreign = [leak for leak in found.leaks if leak.why.startswith("sound")]
    assert sum(leak.audio_s for leak in foreign) > 1
    assert all(leak.found != (leak.expected,) for leak in foreign)
