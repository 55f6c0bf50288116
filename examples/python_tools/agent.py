"""Let the agent call a function of this program, with the stock OpenAI client.

    python agent.py question.wav --url ws://127.0.0.1:8000/v1

The question is a WAV file: 24 kHz, mono, 16 bits, such as "What time is it in Paris?". It is sent in real time,
followed by silence, as a microphone would. Prints the calls and the words of the answers.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import wave
from datetime import datetime
from zoneinfo import ZoneInfo

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeConversationItemFunctionCall, RealtimeSessionCreateRequestParam

ZONES = {"paris": "Europe/Paris", "london": "Europe/London", "tokyo": "Asia/Tokyo", "new york": "America/New_York"}
SESSION: RealtimeSessionCreateRequestParam = {
    "type": "realtime",
    "instructions": "You are a voice assistant. Answer in one short sentence. Use the tool to find out the time.",
    "tools": [
        {
            "type": "function",
            "name": "get_time",
            "description": "Tell the current time in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": sorted(ZONES)}},
                "required": ["city"],
            },
        }
    ],
}


def get_time(city: str) -> str:
    """Return the time in a city in words that can be spoken."""
    return f"{datetime.now(ZoneInfo(ZONES[city.lower()])):%H:%M} in {city.title()}"


async def speak(connection: AsyncRealtimeConnection, question: bytes) -> None:
    """Send the question in real time, in frames of 20 ms, then silence until cancelled."""
    frames = [question[at : at + 960].ljust(960, b"\0") for at in range(0, len(question), 960)]
    while True:
        frame = frames.pop(0) if frames else bytes(960)
        await connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())
        await asyncio.sleep(0.02)


async def run(connection: AsyncRealtimeConnection, call: RealtimeConversationItemFunctionCall) -> None:
    """Run the function that the model calls, and send its result."""
    print(f"call:      {call.name} {call.arguments}")
    output = get_time(**json.loads(call.arguments))
    item = {"type": "function_call_output", "call_id": call.call_id or "", "output": output}
    await connection.conversation.item.create(item=item)  # type: ignore[arg-type]


async def talk(url: str, question: bytes) -> None:
    """Send the question, run the tools that the agent calls, and print its answer."""
    http = url.replace("ws", "http", 1)
    client = AsyncOpenAI(api_key=os.environ.get("REJOINDER_API_KEY", "none"), base_url=http, websocket_base_url=url)
    async with client.realtime.connect(model="rejoinder") as connection:
        await connection.session.update(session=SESSION)
        speaking = asyncio.create_task(speak(connection, question))
        called = False
        async for event in connection:
            if event.type == "response.output_item.done" and event.item.type == "function_call":
                called = True
                await run(connection, event.item)
            elif event.type == "response.output_audio_transcript.done":
                print(f"rejoinder: {event.transcript}")
            elif event.type == "error":
                raise RuntimeError(event.error.message)
            elif event.type == "response.done":
                if not called:
                    break
                called = False
                await connection.response.create()  # speak the answer, now that the result is known
        speaking.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/v1")
    arguments = parser.parse_args()
    with wave.open(arguments.question) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (24_000, 1, 2):
            raise SystemExit("The question is not 24 kHz, mono, 16 bits.")
        asyncio.run(talk(arguments.url, file.readframes(file.getnframes())))
