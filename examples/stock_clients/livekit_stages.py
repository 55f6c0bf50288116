"""LiveKit's STT, LLM and TTS of a cascaded agent: ask question.wav, print the answer and write answer.wav (24 kHz).

python livekit_stages.py http://127.0.0.1:8000/v1
"""

import asyncio
import sys
import wave

from livekit import rtc
from livekit.agents import ChatContext
from livekit.plugins import openai


async def main(url: str) -> None:
    """Let the question go through the three stages."""
    server = {"base_url": url, "api_key": "none", "model": "rejoinder"}
    with wave.open("question.wav") as file:
        question = rtc.AudioFrame(file.readframes(file.getnframes()), 24_000, 1, file.getnframes())
    heard = await openai.STT(**server).recognize(question)
    context = ChatContext()
    context.add_message(role="user", content=heard.alternatives[0].text)
    answer = await openai.LLM(**server).chat(chat_ctx=context).collect()
    voice = openai.TTS(**server, response_format="pcm")
    with wave.open("answer.wav", "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        async for part in voice.synthesize(answer.text):
            file.writeframes(part.frame.data)
    print(answer.text)


asyncio.run(main(sys.argv[1]))
