"""Tests of long speech: it is transcribed in windows of at most 20 s, whose transcripts are joined."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from typing import Any

import numpy as np
import pytest

from rejoinder.core.audio.windows import OVERLAP_S, SPLIT_S
from rejoinder.core.errors import BackendError, CallerError
from rejoinder.core.settings.settings import ConversationSettings, HostSettings, Settings, SpeechSettings
from tests.actors.asking import detection, prompts, server_vad
from tests.actors.fakes import ScriptedStt
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual

LONGEST_JOB_S = 20.0
MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None, "transcription": {"model": "whisper"}}}}
PCM_S = 32_000


def _seconds(play: Play) -> list[float]:
    return [len(job.pcm) / PCM_S for job in play.stt.jobs]


def _numbered(count: int) -> ScriptedStt:
    """Return a fake speech-to-text with the transcripts "chunk1 told1", "chunk2 told2" and so on."""
    return ScriptedStt(deque([f"chunk{number} told{number}" for number in range(1, count + 1)]))


def _ramp(seconds: float) -> bytes:
    """Return loud audio with a different level in each second, so that a test can tell which seconds were heard."""
    levels = np.repeat(np.arange(1, round(seconds) + 1) * 40, 16_000)[: round(seconds * 16_000)]
    return bytes((levels * np.tile([1, -1], levels.size // 2)).astype("<i2").tobytes())


def _levels(play: Play) -> set[int]:
    """Return which seconds of `_ramp`, numbered from 1, have reached speech-to-text."""
    return {int(level) // 40 for job in play.stt.jobs for level in np.unique(np.abs(np.frombuffer(job.pcm, "<i2")))}


async def _commit(caller: Caller, pcm: bytes, size: int) -> dict[str, Any]:
    """Append audio in messages of `size` bytes at once, commit it, and return the transcription event."""
    await caller.ask(type="session.update", session=MANUAL)
    await caller.until("session.updated")
    for at in range(0, len(pcm), size):
        await caller.ask(type="input_audio_buffer.append", audio=base64.b64encode(pcm[at : at + size]).decode())
    await caller.ask(type="input_audio_buffer.commit")
    await caller.until("input_audio_buffer.committed")
    return await caller.until("conversation.item.input_audio_transcription.completed")


@pytest.mark.parametrize("size", [640, 32_000, 1 << 23], ids=["20 ms", "1 s", "at once"])
@pytest.mark.parametrize("seconds", [19, 31, 41, 59, 200])
@virtual
async def test_a_manual_commit_of_any_length_is_heard(seconds: int, size: int) -> None:
    """Committed audio of any length is transcribed completely, in jobs of at most LONGEST_JOB_S seconds.

    It may exceed the 30 s that a model takes and the ring buffer's usual size. `size` is the bytes of each message.
    """
    play = Play(stt=_numbered(20))
    async with play.call() as caller:
        done = await _commit(caller, _ramp(seconds), size)
        assert not caller.of("error")
    assert max(_seconds(play)) <= LONGEST_JOB_S
    assert _levels(play) == set(range(1, seconds + 1))
    count = len(play.stt.jobs)
    # The last piece of audio is transcribed at the same time as the windows, so jobs may start in another order.
    assert sorted(done["transcript"].split()) == sorted(
        word for number in range(1, count + 1) for word in (f"chunk{number}", f"told{number}")
    )
    assert done["usage"]["seconds"] == pytest.approx(seconds, abs=0.01)


@virtual
async def test_speech_of_a_minute_is_one_turn() -> None:
    """Speech without a pause for 59 s is one turn with one answer. Windows are transcribed while the caller speaks."""
    play = Play(stt=_numbered(20))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad())
        await caller.speak(59)
        before_the_end = len(play.stt.jobs)
        await caller.listen("response.done")
        await caller.hush(3)
    assert before_the_end >= 3
    assert len(caller.of("input_audio_buffer.committed")) == 1
    assert len(caller.of("response.done")) == 1
    assert max(_seconds(play)) <= LONGEST_JOB_S
    windows = len(play.stt.jobs)
    assert sum(_seconds(play)) - (windows - 1) * OVERLAP_S == pytest.approx(59.1, abs=0.2)
    heard = " ".join(f"chunk{number} told{number}" for number in range(1, windows + 1))
    assert prompts(play)[-1] == [("user", heard)]


@virtual
async def test_long_speech_with_pauses_is_one_turn() -> None:
    """Speech of 58 s with pauses of 0.3 s is one turn whose four windows are each transcribed once."""
    play = Play(stt=_numbered(40))
    play.turn.probabilities = deque([0.02])
    async with play.call() as caller:
        for _ in range(8):
            await caller.speak(7)
            await caller.hush(0.3)
        await caller.listen("response.done")
    assert len(caller.of("input_audio_buffer.committed")) == 1
    assert max(_seconds(play)) <= LONGEST_JOB_S
    text = prompts(play)[-1][0][1]
    assert text.count("chunk") == 4


@virtual
async def test_the_end_of_a_long_turn_waits_for_its_rest_only() -> None:
    """The answer to 59 s of speech comes as quickly as the answer to 1 s, to within 0.25 s.

    After the end of speech, only the audio after the last window is still to be transcribed.
    """
    delays = []
    for seconds in (1, 59):
        play = Play()
        async with play.call() as caller:
            await caller.speak(seconds)
            ended = asyncio.get_running_loop().time()
            await caller.listen("response.output_audio.delta")
            delays.append(asyncio.get_running_loop().time() - ended)
    assert delays[1] == pytest.approx(delays[0], abs=0.25)


@virtual
async def test_the_longest_utterance_is_continued_in_the_next_turn() -> None:
    """Speech longer than `max_utterance_s` (here 40 s) is cut there into two turns, and all of it is transcribed."""
    play = Play(Settings(speech=SpeechSettings(max_utterance_s=40)), stt=_numbered(20))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(create_response=False))
        await caller.speak(60)
        await caller.listen("input_audio_buffer.committed", 2)
        await caller.hush(1)
    assert max(_seconds(play)) <= LONGEST_JOB_S
    assert sum(_seconds(play)) == pytest.approx(60 + 3 * OVERLAP_S, abs=1.6)


@virtual
async def test_more_audio_than_is_kept_is_reported_once() -> None:
    """If uncommitted audio exceeds `max_buffered_audio_s`, the client gets one error event.

    Only the newest audio, here 60 s, is transcribed.
    """
    play = Play(Settings(host=HostSettings(max_buffered_audio_s=60)), stt=_numbered(20))
    async with play.call() as caller:
        await _commit(caller, _ramp(100), 32_000)
        errors = caller.of("error")
        assert [event["error"]["code"] for event in errors] == ["input_audio_buffer_full"]
        assert "60 s" in errors[0]["error"]["message"]
        assert _levels(play) == set(range(41, 101))
        await _commit(caller, _ramp(5), 32_000)
        assert len(caller.of("error")) == 1


@virtual
async def test_memory_grows_for_long_audio_only() -> None:
    """The ring buffer grows only while a client without turn detection collects audio, here 200 s.

    After the commit, and with turn detection also during long silence and speech, it has its usual size.
    """
    play = Play()
    async with play.call() as caller:
        ring = caller.session.audio_input._ring
        usual = ring.capacity
        await _commit(caller, _ramp(200), 32_000)
        assert ring.capacity >= 200 * 16_000
        await caller.hush(0.1)
        assert ring.capacity == usual
        await caller.ask(type="session.update", session=detection({"type": "semantic_vad"}))
        await caller.until("session.updated", 2)
        await caller.hush(120)
        await caller.speak(50)
        assert ring.capacity == usual


@virtual
async def test_audio_that_waits_for_its_decision_is_kept() -> None:
    """With voice activity detection, 59 s of speech in one message are transcribed completely as one turn."""
    play = Play(stt=_numbered(20))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(create_response=False))
        await caller.until("session.updated")
        caller.pour(59.0, 1.0)
        await caller.until("input_audio_buffer.committed")
        await caller.hush(2)
        assert not caller.of("error")
    windows = len(play.stt.jobs)
    assert sum(_seconds(play)) - (windows - 1) * OVERLAP_S == pytest.approx(59.1, abs=0.2)


@pytest.mark.parametrize("kind", ["clear", "hang up"])
@virtual
async def test_cleared_windows_are_not_transcribed(kind: str) -> None:
    """If the client clears the buffer or hangs up, running transcriptions of the utterance's windows are cancelled.

    Cleared audio makes no turn.
    """
    play = Play(stt=ScriptedStt(delay_s=8.0))
    async with play.call() as caller:
        await caller.speak(40)
        if kind == "clear":
            await caller.ask(type="input_audio_buffer.clear")
            await caller.hush(20)
            assert not caller.of("input_audio_buffer.committed")
    assert play.stt.cancelled >= 1


@pytest.mark.parametrize(
    "fault", [BackendError("gone.", stage="stt"), CallerError("too long.", "Cut it."), ZeroDivisionError()], ids=repr
)
@virtual
async def test_a_window_that_fails_is_reported(fault: Exception) -> None:
    """If a window cannot be transcribed, the client gets a transcription.failed event for the turn."""
    play = Play(Settings(conversation=ConversationSettings(give_up_after_s=2)))
    async with play.call() as caller:
        await caller.ask(type="session.update", session=MANUAL)
        caller.session.append_audio(_ramp(31))
        await caller.until("session.updated")
        play.stt.fault = fault
        await caller.ask(type="input_audio_buffer.commit")
        await caller.until("input_audio_buffer.committed")
        await asyncio.sleep(0.5)
        play.stt.fault = fault if isinstance(fault, BackendError) else None
        failed = await caller.until("conversation.item.input_audio_transcription.failed")
    assert failed["error"]["code"] == "transcription_failed"


@virtual
async def test_interim_transcripts_of_long_speech_are_short() -> None:
    """Interim transcripts of 45 s of speech have at most about SPLIT_S seconds of audio, which the model can take."""
    play = Play()
    async with play.call() as caller:
        await caller.speak(45)
        await caller.listen("response.done")
    assert play.stt.partials
    assert max(len(job.pcm) for job in play.stt.partials) / PCM_S <= SPLIT_S + 0.1
