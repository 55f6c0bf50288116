"""Tests of the host: admission, sessions that leave nothing when they end, and shared voice activity detection.

A tick is one call of voice activity detection for the new audio of all sessions.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from actors.host import Host, synthesize_held_clips
from actors.session import Session
from actors.stages.ports import Stages
from deployments.serving.load_exchange import open_admission
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.reply.held_clips import HeldClip
from rejoinder.core.resilience.stage_admission import StageAdmission, TierLimits
from rejoinder.core.resilience.stage_load import StageReport
from rejoinder.core.settings.settings import AdmissionSettings, ConversationSettings, HostSettings, Settings
from tests.actors.fakes import LoudnessVad, ScriptedStt, ScriptedTurn, ToneTts, WordyLlm, voice
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual


class Gone(Exception):
    """Exception that a test raises inside a conversation, as a transport may."""


def drop(event: dict[str, Any]) -> None:
    """Ignore a server event; for sessions whose events are not checked."""


@virtual
async def test_a_full_host_refuses_with_a_hint_and_takes_the_next_when_a_seat_is_free() -> None:
    """A full host raises Overloaded with `retry_after_s` and counts the refusal.

    A place (seat) is free again when its conversation ends, also if it ends with an exception.
    """
    play = Play(Settings(host=HostSettings(max_sessions=2, retry_after_s=7)))
    async with play.open() as host:
        with host.seat():
            with host.seat(), pytest.raises(Overloaded) as refused, host.seat():
                raise AssertionError("there was no third seat")
            assert (refused.value.retry_after_s, refused.value.resource) == (7, "sessions")
            assert host.live == 1
            with pytest.raises(Gone), host.seat():
                raise Gone
            with host.seat():
                assert host.live == 2
        assert host.live == 0
    assert play.metrics.counts["refused full"] == 1
    assert play.metrics.counts["opened"] == play.metrics.counts["closed"] == 4


@virtual
async def test_the_hint_of_a_full_host_is_the_time_until_a_call_ends() -> None:
    """If calls end every 20 s, a full host asks a refused caller to wait for 20 s, which is above `retry_after_s`."""
    play = Play(Settings(host=HostSettings(max_sessions=2, retry_after_s=7)))
    async with play.open() as host:
        with host.seat():
            for _ in range(3):
                with host.seat():
                    await asyncio.sleep(20)
            with host.seat(), pytest.raises(Overloaded) as refused, host.seat():
                raise AssertionError("there was no third seat")
    assert refused.value.retry_after_s == pytest.approx(20)


@virtual
async def test_a_refused_handshake_that_is_sent_again_counts_in_part() -> None:
    """With one retry by the proxy, two refused handshakes of a caller count as one new call, as without a proxy one.

    The autoscaling would otherwise start hosts for callers who do not exist.
    """
    for retries in (0, 1):
        play = Play(Settings(host=HostSettings(max_sessions=1)), retries=retries)
        async with play.open() as host:
            with host.seat():
                for _ in range(10 * (1 + retries)):
                    with pytest.raises(Overloaded), host.seat():
                        raise AssertionError("there was no second seat")
                await asyncio.sleep(10)
                assert host.arrivals_per_s == pytest.approx((1 + 10) / 10)
        assert play.metrics.counts["refused full"] == 10 * (1 + retries)


@virtual
async def test_a_late_host_refuses_until_it_is_in_time_again() -> None:
    """While its event loop is late, a host refuses new calls with a retry hint and counts the refusals. Running calls
    continue. Once the loop is in time, calls are admitted again.
    """
    loop = asyncio.get_running_loop()
    play = Play(Settings(host=HostSettings(refuse_at_loop_lag_ms=100, retry_after_s=7)))
    async with play.open() as host:
        with host.seat():
            # A clock that runs twice as fast as the loop's sleeps makes every measurement late.
            host.services = replace(host.services, clock=lambda: 2 * loop.time())
            await asyncio.sleep(3)
            with pytest.raises(Overloaded) as refused, host.seat():
                raise AssertionError("a late host took a call")
            assert (refused.value.retry_after_s, refused.value.resource) == (7, "loop")
            host.services = replace(host.services, clock=loop.time)
            await asyncio.sleep(3)
            with host.seat():
                assert host.live == 2
    assert play.metrics.counts["refused late"] == 1


def _admission() -> StageAdmission:
    """Return the admission of a host whose stages have one slot each, so that it admits 4 calls without a report."""
    return open_admission(Settings(), {"stt": 1, "llm": 1, "tts": 1}, phase=0.0)


def _loaded(utilisation: float) -> StageReport:
    return StageReport("r", slots=1, utilisation=utilisation, load=utilisation, queue_s=0, first_s=0.1, service_s=0.1)


@virtual
async def test_a_call_that_the_stages_cannot_serve_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """While a stage reports too high a load, calls are refused. The refusal names the stage in its message and the log.

    It is counted by its reason. When the report has expired, calls are admitted again, and the log says so.
    """
    play = Play(stage_admission=_admission())
    assert play.stage_admission is not None
    async with play.open() as host:
        with host.seat():
            assert play.stage_admission.live == 1
            play.stage_admission.note("tts", _loaded(0.95), asyncio.get_running_loop().time())
            with caplog.at_level("WARNING"), pytest.raises(Overloaded) as refused, host.seat():
                raise AssertionError("a loaded stage took a call")
            assert (refused.value.resource, refused.value.retry_after_s) == ("tts", HostSettings().retry_after_s)
            assert "stage tts" in str(refused.value)
            assert "refused (utilisation)" in caplog.text
            await asyncio.sleep(10)
            with host.seat():
                assert play.stage_admission.live == 2
            assert "admitted again" in caplog.text
        assert play.stage_admission.live == 0
    assert play.metrics.counts["refused utilisation"] == 1


@virtual
async def test_speculative_work_stops_while_the_stages_are_loaded() -> None:
    """While the admission says that speculative work yields, a session makes no draft and no interim transcript.

    The turn is answered all the same.
    """
    counts = []
    for utilisation in (0.1, 0.7):
        admission = _admission()
        play = Play(stage_admission=admission)
        async with play.call() as caller:
            admission.note("stt", _loaded(utilisation), asyncio.get_running_loop().time())
            await caller.hush(1.0)
            await caller.speak(3.0)
            await caller.listen("response.done")
        counts.append((play.metrics.counts["draft begun"], play.metrics.counts["partial heard"]))
    assert min(counts[0]) > 0
    assert counts[1] == (0, 0)


@virtual
async def test_answered_turns_reach_the_admission() -> None:
    """Each answered turn is reported to the admission with its processing time, from which it learns the latency."""
    admission = RecordingAdmission()
    play = Play(stage_admission=admission)
    async with play.call() as caller:
        await caller.speak(1.0)
        await caller.listen("response.done")
    assert len(admission.turns) == 1
    assert 0 <= admission.turns[0] < 1


class RecordingAdmission(StageAdmission):
    """Admission that keeps the latencies of the turns that it gets, in seconds."""

    def __init__(self) -> None:
        super().__init__(AdmissionSettings(), TierLimits(0.6, 0.3), 4, 5.0, phase=0.0)
        self.turns: list[float] = []

    def turn(self, seconds: float, now: float) -> None:
        """Keep the latency."""
        self.turns.append(seconds)


async def _hold(host: Host, number: int) -> weakref.ref[Session]:
    """Open a session, bring it into one of five states (by `number`), leave, and return a weak reference to it."""
    caller = Caller()
    with host.seat():
        async with host.converse(f"s{number}", caller.take, "rejoinder") as session:
            caller.session = session
            await caller.ask(type="conversation.item.create", item={"type": "message", "role": "user", "content": []})
            if number % 5 >= 1:
                await caller.speak(0.4)
            if number % 5 >= 2:
                await caller.listen("input_audio_buffer.committed")
            if number % 5 >= 3:
                await caller.listen("response.output_audio.delta")
            if number % 5 >= 4:
                await caller.ask(type="response.create", response={"conversation": "none"})
                await asyncio.sleep(0.01)
            return weakref.ref(session)


@virtual
async def test_two_hundred_sessions_leave_nothing() -> None:
    """After 200 sessions that end in different states, none of their tasks, objects, places or engine calls is left."""
    play = Play(Settings(host=HostSettings(max_sessions=200)))
    async with play.open() as host:
        await asyncio.sleep(0.01)
        before = len(asyncio.all_tasks())
        sessions: list[weakref.ref[Session]] = []
        for first in range(0, 200, 20):
            sessions += await asyncio.gather(*(_hold(host, number) for number in range(first, first + 20)))
        await asyncio.sleep(2)
        assert len(asyncio.all_tasks()) == before
        gc.collect()
        assert [session for session in sessions if session() is not None] == []
        assert host.live == 0
        assert (play.llm.running, play.tts.running) == (0, 0)
    assert play.metrics.counts["opened"] == play.metrics.counts["closed"] == 200


@virtual
async def test_the_transport_gets_its_own_exception() -> None:
    """An exception of the transport inside `converse` is raised as it is, without an exception group."""
    async with Play().open() as host:
        with pytest.raises(Gone):
            async with host.converse("x", drop, "rejoinder"):
                raise Gone


@virtual
async def test_cancelling_a_conversation_ends_it() -> None:
    """Cancelling the transport's task inside `converse` ends the session, and the cancellation propagates."""
    play = Play()
    async with play.open() as host:
        inside = asyncio.Event()

        async def converse() -> None:
            async with host.converse("x", drop, "rejoinder"):
                inside.set()
                await asyncio.Event().wait()

        await asyncio.sleep(0.01)
        before = len(asyncio.all_tasks())
        task = asyncio.create_task(converse())
        await inside.wait()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert len(asyncio.all_tasks()) == before


@virtual
async def test_sessions_in_one_batch_are_independent() -> None:
    """Fifty callers who speak at different times share voice activity ticks.

    Each gets the same starts and ends of speech as in a call alone.
    """
    play = Play()

    async def converse(host: Host, number: int) -> list[int]:
        caller = Caller()
        async with host.converse(f"s{number}", caller.take, "rejoinder") as session:
            caller.session = session
            await caller.hush(0.1 * number)
            await caller.speak(0.5)
            await caller.listen("input_audio_buffer.committed")
            caller.silent = True
        caller.check()
        return [
            caller.of("input_audio_buffer.speech_started")[0]["audio_start_ms"],
            caller.of("input_audio_buffer.speech_stopped")[0]["audio_end_ms"],
        ]

    async with play.open() as host:
        edges = await asyncio.gather(*(converse(host, number) for number in range(50)))
    for number, (start_ms, end_ms) in enumerate(edges):
        assert start_ms == pytest.approx(max(0, 100 * number - 300), abs=32)
        assert end_ms == pytest.approx(
            100 * number + 500 + 100, abs=64
        )  # Speech of 500 ms, and the 100 ms of silence that end a turn whose transcript looks complete


@virtual
async def test_a_vad_result_of_the_wrong_size_is_a_failed_tick() -> None:
    """A voice activity result with too few probabilities counts as a failure of the stage.

    The call is repeated, and every session gets its own result.
    """

    class Torn(LoudnessVad):
        torn = 3

        async def step(self, *args: Any, **kwargs: Any) -> Any:
            result = await super().step(*args, **kwargs)
            self.torn -= 1
            return type(result)(result.probabilities[:-1], result.states) if self.torn >= 0 else result

    play = Play(vad=Torn())
    async with play.call() as caller:
        done = await caller.say()
    assert done["response"]["status"] == "completed"
    assert play.metrics.counts["backend vad"] == 3


@virtual
@pytest.mark.parametrize(("slots", "at_once"), [(1, 1), (2, 1), (4, 2), (64, 4)])
async def test_prepared_clips_leave_half_of_the_slots_free(slots: int, at_once: int) -> None:
    """At most four clips are synthesized at a time, and no more than half of the slots, but at least one."""
    most = 0

    class Counted(ToneTts):
        async def _chunks(self, text: str) -> AsyncIterator[bytes]:
            nonlocal most
            most = max(most, self.running)
            async for chunk in super()._chunks(text):
                yield chunk

    stages = Stages(LoudnessVad(), turn_detector=ScriptedTurn(), stt=ScriptedStt(), llm=WordyLlm(), tts=Counted())
    await synthesize_held_clips(stages, ConversationSettings(), slots=slots)
    assert most == at_once


@virtual
async def test_held_clips_are_synthesized_before_the_first_call() -> None:
    """Each prepared clip is synthesized once, with retries while text-to-speech starts. If text-to-speech never works,
    `synthesize_held_clips` raises BackendError.
    """
    tts = ToneTts(failures=2)
    stages = Stages(LoudnessVad(), turn_detector=ScriptedTurn(), stt=ScriptedStt(), llm=WordyLlm(), tts=tts)
    settings = ConversationSettings(apology="Sorry.", greeting="Hello.", phrases=("Yes.", "Wait."), fillers=("Wait.",))
    phrases = await synthesize_held_clips(stages, settings)
    assert phrases.apology == HeldClip("Sorry.", voice("Sorry."))
    assert [clip.text for clip in phrases.fillers] == ["Wait."]
    for text in ("Hello.", "Yes.", "Wait."):
        assert phrases.of(text) == HeldClip(text, voice(text))
    endings = {settings.failure, settings.no_answer, settings.declined, settings.bridge}
    assert set(tts.texts) == {"Hello.", "Sorry.", "Wait.", "Yes."} | endings
    assert len(tts.texts) == 4 + 4 + 2
    assert not (await synthesize_held_clips(stages, settings.model_copy(update={"filler_after_ms": 0}))).fillers
    tts.fault = BackendError("gone.", stage="tts")
    with pytest.raises(BackendError, match=r"Sorry\."):
        await synthesize_held_clips(stages, settings, max_attempts=3)
