"""The OpenAI Agents SDK for Python: ask question.wav (24 kHz, mono, 16 bits) and print the words of the answer.

python agents_sdk.py ws://127.0.0.1:8000/v1
"""

import asyncio
import sys
import wave

from agents.realtime import RealtimeAgent, RealtimeRunner


async def main(url: str) -> None:
    """Ask and print until the reply ends."""
    with wave.open("question.wav") as file:
        question = file.readframes(file.getnframes()) + bytes(48_000 * 3)  # silence ends the question
    agent = RealtimeAgent(name="assistant", instructions="Answer in one short sentence.")
    config = {"url": f"{url}/realtime?model=rejoinder", "api_key": "none"}
    async with await RealtimeRunner(agent).run(model_config=config) as session:
        await session.send_audio(question)
        async for event in session:
            if event.type == "raw_model_event" and event.data.type == "transcript_delta":
                print(event.data.delta, end="", flush=True)
            elif event.type == "raw_model_event" and event.data.type == "turn_ended":
                break
    print()


asyncio.run(main(sys.argv[1]))
