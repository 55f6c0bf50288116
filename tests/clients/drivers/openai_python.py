"""Driver of the openai package for Python, which also validates every event by the package's own types.

It does what a program must that uses the bare events: play, truncate and run tools.
"""

import asyncio
import base64
import json
import time

from microphone import RESULT, Microphone, Observer, converse
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter, ValidationError

observer = Observer()
microphone = Microphone(observer)
TYPES = TypeAdapter(RealtimeServerEvent)
SESSION = {
    "type": "realtime",
    "instructions": "Answer in one short sentence.",
    "audio": {"input": {"transcription": {"model": "whisper-1"}}},
    "tools": [
        {
            "type": "function",
            "name": "get_weather",
            "description": "Tell the weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
    ],
}


class Program:
    """A program that uses a connection: it plays replies, truncates them at barge-ins, and runs the tool."""

    def __init__(self, connection) -> None:
        self._connection = connection
        self._item, self._began_at, self._seconds = "", 0.0, 0.0
        self._called = False

    async def send(self) -> None:
        """Send the microphone's frames until cancelled."""
        while True:
            frame = base64.b64encode(await microphone.frame()).decode()
            await self._connection.input_audio_buffer.append(audio=frame)

    async def watch(self) -> None:
        """Handle the server's events until cancelled."""
        async for event in self._connection:
            try:
                TYPES.validate_python(event.to_dict())
            except ValidationError as fault:
                observer.tell("error", text=f"{event.type} does not fit its type: {fault}")
            await self._take(event)

    async def _take(self, event) -> None:
        if event.type == "conversation.item.input_audio_transcription.completed":
            observer.tell("user", text=event.transcript)
        elif event.type == "response.output_audio_transcript.done":
            observer.tell("agent", text=event.transcript)
        elif event.type == "response.output_audio.delta":
            self._play(event.item_id, base64.b64decode(event.delta))
        elif event.type == "input_audio_buffer.speech_started":
            await self._stop()
        elif event.type == "response.output_item.done" and event.item.type == "function_call":
            observer.tell("tool", name=event.item.name, arguments=json.loads(event.item.arguments))
            item = {"type": "function_call_output", "call_id": event.item.call_id, "output": RESULT}
            await self._connection.conversation.item.create(item=item)
            self._called = True
        elif event.type == "response.done" and self._called:
            self._called = False
            await self._connection.response.create()
        elif event.type == "error":
            observer.tell("error", text=event.error.message)

    def _play(self, item: str, pcm: bytes) -> None:
        if item != self._item:
            self._item, self._began_at, self._seconds = item, time.monotonic(), 0.0
        self._seconds += len(pcm) / 48_000
        observer.tell("audio", bytes=len(pcm))

    async def _stop(self) -> None:
        played = time.monotonic() - self._began_at
        if not self._item or played >= self._seconds:
            return  # nothing is being played
        observer.tell("stopped")
        await self._connection.conversation.item.truncate(
            item_id=self._item, content_index=0, audio_end_ms=int(played * 1000)
        )
        self._item = ""


async def main() -> None:
    http = microphone.url.replace("ws", "http", 1)
    client = AsyncOpenAI(api_key="none", base_url=http, websocket_base_url=microphone.url)
    async with client.realtime.connect(model="rejoinder") as connection:
        await connection.session.update(session=SESSION)
        program = Program(connection)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(program.send()), group.create_task(program.watch())]
            await converse(observer, microphone)
            observer.tell("end")
            for task in tasks:
                task.cancel()


asyncio.run(main())
