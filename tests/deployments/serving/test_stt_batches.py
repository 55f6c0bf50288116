"""Test of batching in speech to text: jobs that wait in the queue are decoded together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from actors.stages.ports import SttJob
from deployments import stt
from deployments.engines.stt.whisper import WhisperOptions, WhisperResult
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

    def transcribe_batch(self, clips: Sequence[np.ndarray[tuple[int], np.dtype[np.int16]]]) -> list[WhisperResult]:
        self.batches.append(len(clips))
        self.begun.set()
        assert self.go.wait(30)
        return [WhisperResult(f"{clip[0]}", -0.1) for clip in clips]


class NoStore:
    """Stand-in for the model store that returns the name of a model as its path."""

    def path(self, name: str) -> Path:
        return Path(name)


async def test_waiting_jobs_are_decoded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine jobs that arrive during a decode run in batches of at most `max_batch`, in order, each with its own text."""
    monkeypatch.setattr(stt, "Whisper", SlowEngine)
    monkeypatch.setattr(stt, "open_store", lambda settings: NoStore())
    served = stt.Stt(Settings(stt=SttSettings(max_batch=4, first_pass_model="")))
    (engine,) = SlowEngine.made
    jobs = [SttJob(np.full(16, number, "<i2").tobytes()) for number in range(10)]
    first = asyncio.create_task(served.transcribe(jobs[0]))
    await asyncio.to_thread(engine.begun.wait, 30)
    others = [asyncio.create_task(served.transcribe(job)) for job in jobs[1:]]
    await asyncio.sleep(0)  # lets all nine jobs enter the queue
    engine.go.set()
    texts = [transcript.text for transcript in await asyncio.gather(first, *others)]
    assert texts == [str(number) for number in range(10)]
    assert engine.batches == [1, 4, 4, 1]
