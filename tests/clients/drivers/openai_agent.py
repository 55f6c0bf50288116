"""Driver of the realtime session of the OpenAI Agents SDK for Python."""

import asyncio

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from microphone import RESULT, Microphone, Observer, converse, settled

observer = Observer()
microphone = Microphone(observer)


@function_tool
async def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    observer.tell("tool", name="get_weather", arguments={"city": city})
    return RESULT


async def send(session: RealtimeSession) -> None:
    """Send the microphone's frames until cancelled."""
    while True:
        await session.send_audio(await microphone.frame())


async def watch(session: RealtimeSession) -> None:
    """Report the session's events until cancelled."""
    words = ""
    async for event in session:
        if event.type == "audio":
            observer.tell("audio", bytes=len(event.audio.data))
        elif event.type == "audio_interrupted":
            observer.tell("stopped")
        elif event.type == "error":
            observer.tell("error", text=repr(event.error))
        elif event.type == "raw_model_event":
            data = event.data
            if data.type == "input_audio_transcription_completed":
                observer.tell("user", text=data.transcript)
            elif data.type == "transcript_delta":
                words += data.delta
            elif data.type == "turn_ended" and words:
                observer.tell("agent", text=words)
                words = ""


async def main() -> None:
    agent = RealtimeAgent(name="forecaster", instructions="Answer in one short sentence.", tools=[get_weather])
    config = {"url": f"{microphone.url}/realtime?model=rejoinder", "api_key": "none"}
    async with await RealtimeRunner(agent).run(model_config=config) as session:
        tasks = [asyncio.create_task(send(session)), asyncio.create_task(watch(session))]
        await converse(observer, microphone)
        microphone.ask("memory")
        await observer.until(lambda: bool(observer.since_question("agent")), "the answer to memory")
        await settled(observer)
        observer.tell("end")
        for task in tasks:
            task.cancel()


asyncio.run(main())
