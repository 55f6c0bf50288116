"""Driver of a Pipecat pipeline with the OpenAI Realtime service."""

import asyncio
import sys
import time

from loguru import logger
from microphone import RESULT, Microphone, Observer, converse, settled
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import ErrorFrame, InputAudioRawFrame, InterruptionFrame, LLMRunFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.realtime.events import (
    AudioConfiguration,
    AudioInput,
    InputAudioTranscription,
    SessionProperties,
)
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

observer = Observer()
microphone = Microphone(observer)
RUNNING: list[asyncio.Task] = []


class Input(BaseInputTransport):
    """The microphone as Pipecat's input transport."""

    async def start(self, frame):
        await super().start(frame)
        await self.set_transport_ready(frame)
        self._sending = asyncio.create_task(self._send())

    async def cleanup(self):
        self._sending.cancel()
        await super().cleanup()

    async def _send(self):
        while True:
            pcm = await microphone.frame()
            await self.push_audio_frame(InputAudioRawFrame(audio=pcm, sample_rate=24_000, num_channels=1))


class Output(BaseOutputTransport):
    """A loudspeaker that plays in real time."""

    _wrote_at = 0.0

    async def start(self, frame):
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame) -> bool:
        observer.tell("audio", bytes=len(frame.audio))
        self._wrote_at = time.monotonic()
        await asyncio.sleep(len(frame.audio) / 48_000)
        return True

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        # An interruption frame comes with every turn of the caller. Only some of them stop something.
        if isinstance(frame, InterruptionFrame) and time.monotonic() - self._wrote_at < 0.5:
            observer.tell("stopped")


class Watch(FrameProcessor):
    """Reports the caller's words, which go upstream, and errors."""

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            observer.tell("user", text=frame.text)
        elif isinstance(frame, ErrorFrame):
            observer.tell("error", text=frame.error)
        await self.push_frame(frame, direction)


async def get_weather(params) -> None:
    """Tell the weather in a city."""
    observer.tell("tool", name=params.function_name, arguments=dict(params.arguments))
    await params.result_callback(RESULT)


async def open_pipeline(context: LLMContext) -> PipelineWorker:
    """Start a pipeline whose service sends this context to its new session and speaks; wait until it has spoken."""
    properties = SessionProperties(
        instructions="Answer in one short sentence.",
        audio=AudioConfiguration(input=AudioInput(transcription=InputAudioTranscription())),
    )
    llm = OpenAIRealtimeLLMService(
        api_key="none",
        base_url=f"{microphone.url}/realtime",
        settings=OpenAIRealtimeLLMService.Settings(model="rejoinder", session_properties=properties),
    )
    llm.register_function("get_weather", get_weather)
    params = TransportParams(
        audio_in_enabled=True, audio_in_sample_rate=24_000, audio_out_enabled=True, audio_out_sample_rate=24_000
    )
    user, assistant = LLMContextAggregatorPair(context)

    @assistant.event_handler("on_assistant_turn_stopped")
    async def _(_, message) -> None:
        if message.content:
            observer.tell("agent", text=message.content)

    worker = PipelineWorker(
        Pipeline([Input(params), user, Watch(), llm, Output(params), assistant]),
        params=PipelineParams(audio_in_sample_rate=24_000, audio_out_sample_rate=24_000),
        enable_rtvi=False,
        idle_timeout_secs=None,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    RUNNING.append(asyncio.create_task(runner.run()))
    observer.tell("asked", question="greeting")
    await worker.queue_frame(LLMRunFrame())
    await observer.until(lambda: bool(observer.since_question("agent")), "the greeting")
    await settled(observer)
    return worker


async def main() -> None:
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    weather = FunctionSchema("get_weather", "Tell the weather.", {"city": {"type": "string"}}, ["city"])
    tools = ToolsSchema(standard_tools=[weather])
    context = LLMContext([{"role": "user", "content": "Say hello."}], tools=tools)
    worker = await open_pipeline(context)
    await converse(observer, microphone)
    await worker.cancel()
    worker = await open_pipeline(LLMContext(context.get_messages(), tools=tools))
    microphone.ask("memory")
    await observer.until(lambda: bool(observer.since_question("agent")), "the answer to memory")
    await settled(observer)
    observer.tell("end")
    await worker.cancel()


asyncio.run(main())
