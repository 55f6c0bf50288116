"""Tests of prefill: the prompts that the language model computes ahead, and the interim transcripts for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from actors.replying.prefill import END_FIRST_S
from actors.stages.ports import ANYWHERE, LlmRequest, Priority, SttJob, Transcript
from rejoinder.core.errors import Overloaded
from rejoinder.core.settings.settings import (
    BargeInSettings,
    InterimTranscriptSettings,
    LlmSettings,
    Settings,
    SpeculationSettings,
)
from tests.actors.fakes import ScriptedStt, WordyLlm
from tests.actors.stage_play import Play
from tests.actors.virtual_time import virtual


@virtual
async def test_the_instructions_are_prefilled() -> None:
    """The instructions are prefilled when a session begins and when a session.update changes them."""
    play = Play()
    async with play.call() as caller:
        await caller.hush(0.1)
        assert [request.messages for request in play.llm.prefills] == [play.llm.prefills[0].messages]
        assert play.llm.prefills[0].messages[0].content == play.settings.conversation.instructions
        await caller.ask(type="session.update", session={"type": "realtime", "instructions": "Be brief."})
        await caller.hush(0.1)
    assert play.llm.prefills[-1].messages[0].content == "Be brief."


@virtual
async def test_stable_words_are_prefilled() -> None:
    """The words that two interim transcripts agree on, except the last, are prefilled while the caller speaks.

    The prefill has the same session id as the later request for the answer.
    """
    play = Play()
    async with play.call() as caller:
        await caller.hush(0.5)
        await caller.speak(2.0)
        await caller.listen("response.done")
    assert len(play.stt.partials) == 4
    newest = next(prefill for prefill in reversed(play.llm.prefills) if not prefill.judge_end)
    assert newest.messages[-1].content == "What time is"
    assert newest.prefill
    assert newest.session == play.llm.requests[0][1].session != ""


@virtual
async def test_a_draft_lets_the_end_of_its_message_be_judged_first() -> None:
    """A draft requests its answer only after the model has judged whether the caller's message is complete.

    If that takes over END_FIRST_S seconds, the draft does not wait longer. Both requests share the computed prompt.
    """
    for prefill_s, waited_s in ((0.05, 0.05), (5.0, END_FIRST_S)):
        play = Play(stt=ScriptedStt(delay_s=0.05), llm=WordyLlm(prefill_s=prefill_s))
        asked: list[float] = []
        play.llm.requests = Noted(asked)
        async with play.call() as caller:
            await caller.hush(6.0)
            await caller.speak(0.3)
            ended = asyncio.get_running_loop().time()
            await caller.listen("response.done")
        assert asked[0] - ended == pytest.approx(0.032 + 0.05 + waited_s, abs=0.04)


class Noted(list[tuple[str, LlmRequest]]):
    """List of (replica, request) that appends the event loop's time of each addition to `times`."""

    def __init__(self, times: list[float]) -> None:
        super().__init__()
        self._times = times

    def append(self, request: tuple[str, LlmRequest]) -> None:
        self._times.append(asyncio.get_running_loop().time())
        super().append(request)


@virtual
async def test_there_are_no_interim_transcripts_of_silence() -> None:
    """Interim transcripts are made only while the caller speaks. A tentative end of speech stops them.

    When the caller speaks again, they continue.
    """
    play = Play(Settings(barge_in=BargeInSettings(min_words=0)))
    async with play.call() as caller:
        await caller.speak(0.4)
        await caller.hush(6)
        assert play.stt.partials == []
        await caller.speak(1.0)
        await caller.hush(0.1)
        heard = len(play.stt.partials)
        await caller.hush(0.05)
        assert len(play.stt.partials) == heard == 2


@dataclass
class Refusing(ScriptedStt):
    """Fake speech-to-text that refuses interim transcripts."""

    refused: list[float] = field(default_factory=list)

    async def transcribe(self, job: SttJob, *, avoid: frozenset[str] = ANYWHERE) -> Transcript:
        if job.priority is Priority.INTERIM:
            self.refused.append(asyncio.get_running_loop().time())
            raise Overloaded("full.", resource="stt")
        return await super().transcribe(job, avoid=avoid)


@virtual
async def test_refusals_slow_interim_transcripts_down() -> None:
    """Each refused interim transcript doubles the pause before the next one. The turn is answered normally."""
    stt = Refusing()
    play = Play(stt=stt)
    async with play.call() as caller:
        await caller.speak(8.0)
        done = await caller.listen("response.done")
    assert done["response"]["status"] == "completed"
    pauses = [later - earlier for earlier, later in pairwise(stt.refused)]
    assert pauses == [pytest.approx(pause_s, abs=0.01) for pause_s in (0.8, 1.6, 3.2)]
    assert play.metrics.counts["partial failed"] == len(stt.refused)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(llm=LlmSettings(engine="emulated")),
        Settings(llm=LlmSettings(reuse_state=False)),
    ],
)
@virtual
async def test_without_prefill_support_nothing_is_prefilled(settings: Settings) -> None:
    """If the language model's engine does not support prefill, no interim transcripts and no prefills are made."""
    play = Play(settings=settings)
    async with play.call() as caller:
        await caller.say(2.0)
    assert play.stt.partials == []
    assert play.llm.prefills == []


@virtual
async def test_interim_transcripts_can_be_switched_off() -> None:
    """With interim_transcripts.enabled false, no interim transcript is made.

    The instructions are still prefilled. The final transcript is prefilled too, so that the model
    can judge whether it is complete.
    """
    play = Play(settings=Settings(interim_transcripts=InterimTranscriptSettings(enabled=False)))
    async with play.call() as caller:
        await caller.say(2.0)
    assert play.stt.partials == []
    assert [prefill.judge_end for prefill in play.llm.prefills] == [False, True]


@virtual
async def test_a_busy_host_prefills_nothing() -> None:
    """While `max_concurrent` replies of a host are not audible yet, nothing is prefilled."""
    play = Play(settings=Settings(speculation=SpeculationSettings(max_concurrent=1)))
    async with play.open() as host:
        host.services.draft_budget.think()
        async with host.converse("test", lambda _: None, "rejoinder"):
            pass
    assert play.llm.prefills == []


@pytest.mark.parametrize(("seconds", "level"), [(0.2, "INFO"), (20.0, "WARNING")])
@virtual
async def test_the_cost_of_instructions_is_logged(seconds: float, level: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the time and the tokens of a session's instructions, as a warning from 1 s on.

    The prefill is not cut off at the timeout of an answer (8 s).
    """
    caplog.set_level("INFO", logger="actors.replying.prefill")
    play = Play(llm=WordyLlm(prefill_s=seconds))
    async with play.call() as caller:
        await caller.hush(seconds + 1)
    (record,) = caplog.records
    assert record.levelname == level
    length = len(play.settings.conversation.instructions)
    assert f"({length} characters, 20 tokens, 0 of them cached)" in record.getMessage()
    assert f"in {seconds * 1000:.0f} ms" in record.getMessage()
