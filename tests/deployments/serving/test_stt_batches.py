"""Tests of batching in speech to text: waiting jobs are decoded together, and fail one by one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from actors.stages.ports import Priority, SttJob, Transcript, WordTime
from deployments import stt
from deployments.engines.pcm import speech_samples
from deployments.engines.stt.whisper import WhisperOptions, WhisperResult
from rejoinder.core.errors import BackendError
from rejoinder.core.settings.settings import Settings, SttSettings


class SlowEngine:
    """Engine that decodes nothing until `go` is set, and records the size of each batch."""

    name = "slow"
    made: ClassVar[list[SlowEngine]] = []

    def __init__(self, path: Path, options: WhisperOptions) -> None:
        self.made.append(self)
        self.batches: list[int] = []
        self.begun = threading.Event()
        self.go = threading.Event()

    def warm_up(self) -> None:
        pass

    def transcribe_batch(self, clips: Sequence[bytes], doubtful: Sequence[bool] | None = None) -> list[WhisperResult]:
        self.batches.append(len(clips))
        self.begun.set()
        assert self.go.wait(30)
        results = []
        for clip in clips:
            audio = speech_samples(clip, 30)
            number = round(float(audio[0]) * 32_768)
            if number < 0:
                raise BackendError(f"clip {number}", stage="stt")
            results.append(WhisperResult(f"{number}", -0.1))
        return results

    def word_times(self, clip: bytes, text: str, language: str = "") -> list[tuple[str, float, float]]:
        """Return the text as one word of half a second."""
        return [(text, 0.0, 0.5)]


class NoStore:
    """Stand-in for the model store that returns the name of a model as its path."""

    def path(self, name: str) -> Path:
        return Path(name)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> stt.Stt:
    """Return the deployment with a `SlowEngine` and batches of at most four."""
    monkeypatch.setattr(stt, "Whisper", SlowEngine)
    monkeypatch.setattr(stt, "open_store", lambda settings: NoStore())
    monkeypatch.setattr(stt, "whisper_folder", lambda path: path)
    monkeypatch.setattr(stt, "load_silero", lambda settings: None)
    SlowEngine.made.clear()
    return stt.Stt(Settings(stt=SttSettings(max_batch=4, first_pass_model="")))


def job(number: int) -> SttJob:
    """Return a job whose transcript is `number`; the engine fails for a negative one."""
    return SttJob(np.full(16, number, "<i2").tobytes())


async def queued(served: stt.Stt, jobs: list[SttJob]) -> list[Transcript | BaseException]:
    """Decode the first job alone, the others in batches behind it. Return each job's transcript or exception."""
    (engine,) = SlowEngine.made
    first = asyncio.create_task(served.transcribe(jobs[0]))
    await asyncio.to_thread(engine.begun.wait, 30)
    others = [asyncio.create_task(served.transcribe(job)) for job in jobs[1:]]
    await asyncio.sleep(0)  # lets the others enter the queue
    engine.go.set()
    return await asyncio.gather(first, *others, return_exceptions=True)


def texts(outcomes: list[Transcript | BaseException]) -> list[str]:
    """Return each transcript's text, or the name of the exception's type."""
    return [outcome.text if isinstance(outcome, Transcript) else type(outcome).__name__ for outcome in outcomes]


async def test_waiting_jobs_are_decoded_together(served: stt.Stt) -> None:
    """Nine jobs that arrive during a decode run in batches of at most `max_batch`, in order, each with its own text."""
    outcomes = await queued(served, [job(number) for number in range(10)])
    assert texts(outcomes) == [str(number) for number in range(10)]
    assert SlowEngine.made[0].batches == [1, 4, 4, 1]


TOO_LONG = SttJob(bytes(31 * 32_000))
HALF_A_SAMPLE = SttJob(bytes(33))


@pytest.mark.parametrize(
    ("bad", "error"),
    [(TOO_LONG, "CallerError"), (HALF_A_SAMPLE, "CallerError"), (job(-1), "BackendError")],
    ids=["too long", "half a sample", "engine fails"],
)
async def test_a_clip_that_fails_does_not_fail_its_batch(served: stt.Stt, bad: SttJob, error: str) -> None:
    """If one clip makes a batch fail, its caller gets the error, and the other callers get their transcripts."""
    outcomes = await queued(served, [job(0), job(1), bad, job(3), job(4), job(5)])
    assert texts(outcomes) == ["0", "1", error, "3", "4", "5"]


async def test_an_engine_that_fails_for_all_clips_fails_each_of_them(served: stt.Stt) -> None:
    """If every clip of a batch fails alone too, each caller gets its own error, and the queue goes on."""
    outcomes = await queued(served, [job(0), job(-1), job(-2), job(-3)])
    assert [str(outcome) for outcome in outcomes[1:]] == ["clip -1", "clip -2", "clip -3"]
    assert texts([await served.transcribe(job(7))]) == ["7"]


async def test_a_recording_waits_for_calls_and_runs_alone(served: stt.Stt) -> None:
    """Parts of recordings are decoded one by one, after the transcripts of calls that arrived later."""
    recordings = [replace(job(number), priority=Priority.RECORDING) for number in (1, 2)]
    outcomes = await queued(served, [job(0), *recordings, job(3), job(4)])
    assert texts(outcomes) == ["0", "1", "2", "3", "4"]
    assert SlowEngine.made[0].batches == [1, 2, 1, 1]


async def test_words_have_times_if_a_job_asks_for_them(served: stt.Stt) -> None:
    """Only the transcript of a job with `word_times` has its words with their times."""
    timed, plain = await queued(served, [replace(job(7), word_times=True), job(8)])
    assert isinstance(timed, Transcript)
    assert timed.words == (WordTime("7", 0.0, 0.5),)
    assert isinstance(plain, Transcript)
    assert plain.words == ()
