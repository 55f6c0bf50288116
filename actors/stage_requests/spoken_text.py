"""Speak a text: its spoken words segment by segment, each synthesized by the voice's stage."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from actors.stage_requests.patience import GIVE_UP_S, covered
from actors.stages.ports import TtsRequest
from actors.stages.retry import StageFailures, attempts, idle_timeout
from actors.stages.services import Services
from rejoinder.core.audio.pcm import SAMPLE_BYTES
from rejoinder.core.http_api.speech import SpeechOrder
from rejoinder.core.reply.segmenter import Segmenter
from rejoinder.core.reply.spoken.units import SpeechSegment


def segments_of(services: Services, text: str) -> list[SpeechSegment]:
    """Return the segments of a written text, as replies of calls have them. Segments without spoken words are left out.

    The first one is short, so that its audio comes soon.
    """
    settings = services.settings
    conversation = settings.conversation
    segmenter = Segmenter(
        conversation.first_segment_words, conversation.segment_words, language=settings.tts.spoken_language
    )
    found = [*segmenter.push(text), *segmenter.flush()]
    return [segment for segment in found if any(unit.audible for unit in segment.units)]


async def spoken_audio(
    services: Services, segments: list[SpeechSegment], order: SpeechOrder
) -> AsyncGenerator[bytes, None]:
    """Yield the audio of segments as 16-bit PCM at 24 kHz. Closing the generator stops the engine at its next chunk.

    Args:
        services: The host's services.
        segments: What is spoken.
        order: Voice and speed.

    Raises:
        Overloaded: The voice's queue was full at the first segment.
        BackendError: The voice failed for GIVE_UP_S.
    """
    for number, segment in enumerate(segments):
        request = TtsRequest(segment.spoken, order.voice, order.speed, for_call=False)
        async with aclosing(_segment(services, request, begun=number > 0)) as chunks:
            async for pcm in chunks:
                yield pcm


async def _segment(services: Services, request: TtsRequest, *, begun: bool) -> AsyncGenerator[bytes, None]:
    """Yield the audio of one segment. After a failure it is synthesized again, and the samples so far are skipped."""
    failed = partial(StageFailures(services.metrics).failed, "tts")
    limit_s = services.settings.tts.call_timeout_s
    given = 0
    async for attempt in attempts("tts", failed, limit_s=limit_s, give_up_s=GIVE_UP_S, covered=covered(begun=begun)):
        with attempt:
            seen = 0
            async with (
                idle_timeout(attempt.limit_s) as waiting,
                services.stages.tts.open(request, avoid=attempt.avoid) as chunks,
            ):
                async for pcm in chunks:
                    waiting.pause()
                    fresh = pcm[max(0, given - seen) * SAMPLE_BYTES :]
                    seen += len(pcm) // SAMPLE_BYTES
                    if fresh:
                        given = seen
                        attempt.progressed()
                        yield fresh
                    waiting.restart()
