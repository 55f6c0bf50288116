"""Transcribe a recording: cut it into windows, and get the transcript of one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

from actors.stage_requests.patience import ATTEMPT_S, GIVE_UP_S, covered
from actors.stages.ports import Priority, SttJob, Transcript
from actors.stages.retry import StageFailures, attempts
from actors.stages.services import Services
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE
from rejoinder.core.audio.windows import SPLIT_SAMPLES, cut_window
from rejoinder.core.http_api.transcription import RecordingPart, TimedText

SHORTEST_S = 0.1
"""Seconds of audio below which there is nothing to transcribe: no word is so short, and engines need some audio."""


async def transcribe_recording(services: Services, pcm: bytes, *, timed: bool) -> AsyncGenerator[RecordingPart, None]:
    """Yield the transcripts of the parts of a recording, in order. Closing the generator cancels the running job.

    Args:
        services: The host's services.
        pcm: The recording, as 16-bit PCM at 16 kHz.
        timed: True to get the times of the words.

    Raises:
        Overloaded: The recognizer's queue was full at the first part.
        BackendError: The recognizer failed, or has had no time beside the calls, for GIVE_UP_S.
    """
    start, end = 0, len(pcm) // SAMPLE_BYTES
    first = True
    while end - start >= SHORTEST_S * STT_RATE:
        cut = cut_window(pcm[start * SAMPLE_BYTES : (start + SPLIT_SAMPLES) * SAMPLE_BYTES])
        stop = start + cut.end if cut else end
        piece = pcm[start * SAMPLE_BYTES : stop * SAMPLE_BYTES]
        job = SttJob(piece, Priority.RECORDING, ATTEMPT_S, speech_detected=False, word_times=timed)
        found = await _transcript(services, job, first=first)
        yield _part(found, start / STT_RATE, stop / STT_RATE, overlaps=cut is not None and cut.overlaps)
        if cut is None:
            return
        start, first = start + cut.next_start, False


def _part(found: Transcript, start_s: float, end_s: float, *, overlaps: bool) -> RecordingPart:
    words = tuple(TimedText(word.word, start_s + word.start_s, start_s + word.end_s) for word in found.words)
    return RecordingPart(
        found.text,
        start_s,
        end_s,
        words=words,
        avg_logprob=found.avg_logprob,
        language=found.language,
        overlaps=overlaps,
    )


async def _transcript(services: Services, job: SttJob, *, first: bool) -> Transcript:
    failed = partial(StageFailures(services.metrics).failed, "stt")
    async for attempt in attempts("stt", failed, give_up_s=GIVE_UP_S, covered=covered(begun=not first)):
        with attempt:
            async with asyncio.timeout(ATTEMPT_S):
                found = await services.stages.stt.transcribe(job, avoid=attempt.avoid)
    return found
