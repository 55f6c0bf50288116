"""Tests of a session's audio input: noise suppression, and audio that must not be heard twice."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import pytest

from tests.actors.asking import detection, server_vad, settled
from tests.actors.stage_play import Caller, Play
from tests.actors.virtual_time import virtual


class Gate:
    """Noise suppressor that replaces the first `after` audio messages with silence and passes the others."""

    def __init__(self, after: int) -> None:
        self._left = after

    def clean(self, pcm: bytes) -> bytes:
        self._left -= 1
        return pcm if self._left < 0 else bytes(len(pcm))


@virtual
async def test_suppressed_audio_reaches_no_stage() -> None:
    """Audio that the noise suppressor silences reaches neither voice activity detection nor speech-to-text.

    Each session has its own suppressor.
    """
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate(after=50))
        return made[-1]

    play = Play(suppressor=make)
    async with play.open() as host:
        for key in ("one", "two"):
            async with host.converse(key, lambda _: None, "rejoinder"):
                pass
    assert len({id(gate) for gate in made}) == 2
    async with play.call() as caller:
        await caller.speak(2.0)
        await caller.listen("response.done")
    started = caller.of("input_audio_buffer.speech_started")[0]
    assert 650 <= started["audio_start_ms"] <= 750
    loud = np.abs(np.frombuffer(play.stt.jobs[0].pcm, "<i2")) > 1000
    assert not loud[:4000].any()
    assert loud.any()


def _marked(caller: Caller, mark: int, seconds: float) -> None:
    """Append loud audio whose samples are all `mark` or -`mark`, so that a test can tell which audio was heard."""
    caller.session.append_audio(np.tile(np.array([mark, -mark], "<i2"), round(seconds * 8000)).tobytes())


def _heard(play: Play, job: int) -> list[int]:
    """Return the marks in the audio of a speech-to-text job, in order; 0 for silence."""
    samples = np.abs(np.frombuffer(play.stt.jobs[job].pcm, "<i2")).astype(int)
    return [
        int(samples[0]),
        *(int(after) for before, after in itertools.pairwise(samples) if after != before),
    ]


@pytest.mark.parametrize("mode", [None, {"type": "server_vad"}, {"type": "semantic_vad"}], ids=str)
@pytest.mark.parametrize("ending", ["clear", "commit"])
@virtual
async def test_audio_before_a_clear_or_commit_is_not_heard_again(mode: dict[str, object] | None, ending: str) -> None:
    """After a clear or a commit (`ending`), the next turn has only audio that was sent after it.

    The padding before speech adds no audio from before the clear or commit.
    """
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=detection(mode))
        await caller.until("session.updated")
        _marked(caller, 5000, 1.0)
        await caller.ask(type=f"input_audio_buffer.{ending}")
        await caller.until(f"input_audio_buffer.{ending}{'ed' if ending == 'clear' else 'ted'}")
        await asyncio.sleep(1.0)  # the first transcript is done, so that the jobs are in order
        _marked(caller, 9000, 1.0)
        await caller.ask(type="input_audio_buffer.commit")
        await caller.until("input_audio_buffer.committed", 2 if ending == "commit" else 1)
        await caller.hush(0.5)
    assert _heard(play, -1) == [9000]
    assert len(play.stt.jobs[-1].pcm) == 32_000


@virtual
async def test_a_pre_roll_sent_after_a_clear_is_heard_once() -> None:
    """Audio that a client clears and then sends again is in the turn once.

    Pipecat's voice activity detection does this: it clears the buffer when speech starts, and repeats the start of
    speech.
    """
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=detection(None))
        await caller.hush(1.0)
        _marked(caller, 5000, 0.2)
        await caller.ask(type="input_audio_buffer.clear")
        await settled(caller)
        _marked(caller, 5000, 0.2)
        _marked(caller, 9000, 1.0)
        await caller.ask(type="input_audio_buffer.commit")
        await caller.hush(0.5)
    assert _heard(play, 0) == [5000, 9000]
    assert len(play.stt.jobs[0].pcm) == round(1.2 * 32_000)


@virtual
async def test_a_turn_cut_at_its_longest_length_is_continued_where_it_was_cut() -> None:
    """Speech that is cut at `max_utterance_s` gives two turns whose audio meets: no sample is in both."""
    play = Play()
    play.settings = play.settings.model_copy(
        update={"speech": play.settings.speech.model_copy(update={"max_utterance_s": 2.0})}
    )
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(create_response=False))
        await caller.speak(3.0)
        await caller.listen("input_audio_buffer.committed", 2)
        await caller.hush(0.5)
        ends = [event["audio_end_ms"] for event in caller.of("input_audio_buffer.speech_stopped")]
        starts = [event["audio_start_ms"] for event in caller.of("input_audio_buffer.speech_started")]
    assert starts[1] == ends[0]
    heard_s = sum(len(job.pcm) for job in play.stt.jobs) / 32_000
    assert heard_s == pytest.approx(3.05, abs=0.06)


@virtual
async def test_the_padding_before_speech_reaches_into_the_silence_after_a_turn() -> None:
    """The padding before an utterance may include the silence that ended the previous turn.

    That silence was not transcribed, and it may contain the quiet start of the next utterance.
    """
    play = Play()
    async with play.call() as caller:
        await caller.ask(type="session.update", session=server_vad(create_response=False, silence_duration_ms=200))
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed")
        await caller.speak(1.0)
        await caller.listen("input_audio_buffer.committed", 2)
        end_ms = caller.of("input_audio_buffer.speech_stopped")[0]["audio_end_ms"]
        assert caller.of("input_audio_buffer.speech_started")[1]["audio_start_ms"] < end_ms
