"""Contender: Pipecat's default pipeline with its own turn strategies, Silero and Smart Turn.

The engines take fixed times. The module runs in a separate environment (`requirements-pipecat.txt`), so it imports
nothing from Rejoinder but `contender`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Sequence

from loguru import logger
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADState
from pipecat.frames.frames import (
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.services.llm_service import LLMService
from pipecat.services.stt_service import SegmentedSTTService
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

from benchmarks.frameworks import contender
from benchmarks.frameworks.contender import RATE, ReportedEdge


class PipecatStt(SegmentedSTTService):
    """Speech-to-text engine that gives the same transcript for every segment of speech, after a fixed time."""

    @property
    def wants_wav_segments(self) -> bool:
        """False: segments arrive as raw PCM."""
        return False

    async def run_stt(self, audio: bytes) -> AsyncGenerator:
        """Wait the fixed time, then yield the fixed transcript."""
        await asyncio.sleep(contender.STT_S)
        yield TranscriptionFrame(contender.HEARD, "caller", time_now_iso8601())


class PipecatLlm(LLMService):
    """Language model that gives the same reply to every prompt, after a fixed time."""

    async def process_frame(self, frame, direction):
        """Answer a context frame, which contains the conversation, with the fixed reply. Forward every other frame."""
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        await asyncio.sleep(contender.LLM_S)
        await self.push_frame(LLMTextFrame(contender.REPLY))
        await self.push_frame(LLMFullResponseEndFrame())


class PipecatTts(TTSService):
    """Text-to-speech engine that gives the same audio for every text, after a fixed time."""

    def __init__(self) -> None:
        super().__init__(sample_rate=contender.REPLY_RATE, push_start_frame=True, push_stop_frames=True)

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator:
        """Wait the fixed time, then yield the fixed audio in chunks of 200 ms, whatever `text` is."""
        await asyncio.sleep(contender.TTS_S)
        size = len(contender.TTS_CHUNK)
        for at in range(0, len(contender.REPLY_PCM), size):
            chunk = contender.REPLY_PCM[at : at + size]
            yield TTSAudioRawFrame(chunk, contender.REPLY_RATE, 1, context_id=context_id)


class PipecatMicrophone(BaseInputTransport):
    """Input transport that queues the harness's frames, as Pipecat's network transports do."""

    async def start(self, frame):
        """Start and report the transport as ready."""
        await super().start(frame)
        await self.set_transport_ready(frame)

    def push(self, pcm: bytes) -> None:
        """Queue one frame of a caller's audio."""
        # push_audio_frame does the same put, but is a coroutine.
        self._audio_in_queue.put_nowait(InputAudioRawFrame(audio=pcm, sample_rate=RATE, num_channels=1))


class PipecatLoudspeaker(BaseOutputTransport):
    """Output transport that takes audio at twice real time, like Pipecat's WebSocket transport."""

    def __init__(self, params: TransportParams, sounds: Callable[[bytes], None]) -> None:
        super().__init__(params)
        self._sounds = sounds
        self._next = 0.0

    async def start(self, frame):
        """Start and report the transport as ready."""
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame) -> bool:
        """Report the audio to the harness, wait half of its duration and return True.

        Pipecat's WebSocket transports wait half of it too, so that they are ahead of the playback.
        """
        self._sounds(frame.audio)
        now = asyncio.get_running_loop().time()
        self._next = max(now, self._next) + len(frame.audio) / (2 * frame.sample_rate) / 2
        await asyncio.sleep(self._next - now)
        return True


async def open_sessions(count: int, sounds: Callable[[int, bytes], None]) -> Sequence[Callable[[bytes], None]]:
    """Open `count` sessions. Return for each the function that takes a frame of its caller's audio.

    `sounds` is called with a session's number and PCM whenever the session sends audio of a reply.
    """
    return [await _open(number, sounds) for number in range(count)]


async def _open(number: int, sounds: Callable[[int, bytes], None]) -> Callable[[bytes], None]:
    params = TransportParams(
        audio_in_enabled=True,
        audio_in_sample_rate=RATE,
        audio_out_enabled=True,
        audio_out_sample_rate=contender.REPLY_RATE,
    )
    microphone = PipecatMicrophone(params)
    loudspeaker = PipecatLoudspeaker(params, lambda pcm: sounds(number, pcm))
    user, assistant = LLMContextAggregatorPair(
        LLMContext([{"role": "system", "content": "Answer briefly."}]),
        user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer()),
    )
    stages = [
        microphone,
        PipecatStt(ttfs_p99_latency=contender.STT_S),
        user,
        PipecatLlm(),
        PipecatTts(),
        loudspeaker,
        assistant,
    ]
    worker = PipelineWorker(
        Pipeline(stages),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=contender.REPLY_RATE),
        enable_rtvi=False,
        enable_turn_tracking=False,
        idle_timeout_secs=None,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    _RUNNING.append(asyncio.create_task(runner.run()))
    while microphone._audio_task is None:  # noqa: ASYNC110  # Pipecat has no event for this
        await asyncio.sleep(0.01)
    return microphone.push


_RUNNING: list[asyncio.Task] = []


async def offline(frames: Sequence[bytes]) -> list[ReportedEdge]:
    """Return the ends of speech that Pipecat's voice activity detection, with its configured silence, finds."""
    analyzer = SileroVADAnalyzer()
    analyzer.set_sample_rate(RATE)
    edges, speaking = [], False
    for number, frame in enumerate(frames):
        state = await analyzer.analyze_audio(frame)
        if state is VADState.SPEAKING:
            speaking = True
        elif state is VADState.QUIET and speaking:
            speaking = False
            edges.append(ReportedEdge(number * 20.0, number * 20.0))
    return edges


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    contender.main(open_sessions, offline)
