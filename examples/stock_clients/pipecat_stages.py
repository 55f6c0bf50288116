"""Pipecat's cascaded pipeline: ask question.wav (24 kHz, mono, 16 bits) and print the words of the answer.

python pipecat_stages.py http://127.0.0.1:8000/v1
"""

import asyncio
import sys
import wave

from pipecat.frames import frames
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai import llm, stt, tts
from pipecat.workers.runner import WorkerRunner


class Turn(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, frames.TranscriptionFrame):
            frame = frames.LLMContextFrame(LLMContext([{"role": "user", "content": frame.text}]))
        elif isinstance(frame, frames.TTSTextFrame):
            print(frame.text, end=" ")
        await self.push_frame(frame, direction)


async def main(url: str) -> None:
    server = {"base_url": url, "api_key": "none"}
    hear, speak = stt.OpenAISTTService(**server, sample_rate=24_000), tts.OpenAITTSService(**server)
    worker = PipelineWorker(Pipeline([hear, Turn(), llm.OpenAILLMService(**server), speak, Turn()]))
    with wave.open("question.wav") as file:
        question = frames.InputAudioRawFrame(file.readframes(file.getnframes()), 24_000, 1)
    began, ended = frames.VADUserStartedSpeakingFrame(), frames.VADUserStoppedSpeakingFrame()
    await worker.queue_frames([began, question, ended, frames.EndFrame()])
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await runner.run()


asyncio.run(main(sys.argv[1]))
