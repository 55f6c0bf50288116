"""Ask Rejoinder a spoken question with the stock OpenAI client.

    python talk.py question.wav --url ws://127.0.0.1:8000/v1 --out answer.wav

The question is a WAV file: 24 kHz, mono, 16 bits. It is sent in real time, followed by silence, as a microphone would.
Prints both transcripts and writes the answer's audio. If the connection is lost, the conversation goes on over another.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import wave
from typing import Any

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeSessionCreateRequestParam
from websockets.exceptions import ConnectionClosed

RATE = 24_000
FRAME_S = 0.02
# A server that answers no ping for 3 s is lost, although its connection is open: the machine may be gone.
KEEPALIVE: Any = {"ping_interval": 1.0, "ping_timeout": 2.0, "close_timeout": 0.5}
FRAME_BYTES = int(RATE * FRAME_S) * 2
SESSION: RealtimeSessionCreateRequestParam = {
    "type": "realtime",
    "audio": {"input": {"transcription": {"model": "whisper-1"}}},  # any name works: the server uses its own recognizer
}


def read_question(path: str) -> bytes:
    """Return the samples of a WAV file. Raise ValueError if it is not 24 kHz, mono, 16 bits."""
    with wave.open(path) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"{path} is not 24 kHz, mono, 16 bits")
        return bytes(file.readframes(file.getnframes()))


async def speak(connection: AsyncRealtimeConnection, question: bytes) -> None:
    """Send the question in real time, then silence until cancelled. The server ends a turn after some silence."""
    loop = asyncio.get_running_loop()
    due, sent = loop.time(), 0
    while True:
        frame = question[sent : sent + FRAME_BYTES].ljust(FRAME_BYTES, b"\0")
        await connection.input_audio_buffer.append(audio=base64.b64encode(frame).decode())
        sent += FRAME_BYTES
        due += FRAME_S
        await asyncio.sleep(max(0.0, due - loop.time()))


async def talk(url: str, question: bytes) -> bytes:
    """Send the question, print its transcript and the answer's, and return the answer's audio (24 kHz, 16-bit PCM)."""
    http = url.replace("ws", "http", 1)
    client = AsyncOpenAI(api_key=os.environ.get("REJOINDER_API_KEY", "none"), base_url=http, websocket_base_url=url)
    turn = Turn(question)
    for _ in range(10):
        try:
            async with client.realtime.connect(
                model="rejoinder", extra_query=turn.resume(), websocket_connection_options=KEEPALIVE
            ) as connection:
                await turn.hold(connection)
                return turn.answer
        except (ConnectionClosed, OSError):
            if not turn.token:
                raise
            await asyncio.sleep(0.2)
    raise RuntimeError("the connection was lost and did not come back")


class Turn:
    """One question and its answer, over one or more connections."""

    def __init__(self, question: bytes) -> None:
        self.question = question
        self.answer = b""
        self.item = ""
        self.token = ""

    def resume(self) -> dict[str, str]:
        """Return the query parameters that continue the conversation: its token, and how much audio has arrived."""
        heard = {"heard": f"{self.item}:{len(self.answer) // 48}"} if self.item else {}
        return {"resume_token": self.token, **heard} if self.token else {}

    async def hold(self, connection: AsyncRealtimeConnection) -> None:
        """Speak, and take the server's events, until the answer is complete."""
        if not self.token:
            await connection.session.update(session=SESSION)
        speaking = asyncio.create_task(speak(connection, self.question))
        try:
            async for event in connection:
                if event.type == "session.created":
                    self.token = (event.model_extra or {}).get("rejoinder", {}).get("resume_token", "")
                elif event.type == "input_audio_buffer.committed":
                    self.question = b""  # the server has it: after a lost connection it is not sent again
                elif event.type == "conversation.item.input_audio_transcription.completed":
                    print(f"you:       {event.transcript}")
                elif event.type == "input_audio_buffer.speech_started":
                    # The user interrupts. A client with a loudspeaker must also drop the audio not yet played.
                    self.answer = b""
                elif event.type == "response.output_audio.delta":
                    self.item = event.item_id
                    self.answer += base64.b64decode(event.delta)
                elif event.type == "response.output_audio_transcript.done":
                    print(f"rejoinder: {event.transcript}")
                elif event.type == "error":
                    raise RuntimeError(event.error.message)
                elif event.type == "response.done":
                    return
        finally:
            speaking.cancel()


def main() -> None:
    """Read the arguments, run the turn, and write the answer's audio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--url", default="ws://127.0.0.1:8000/v1")
    parser.add_argument("--out", default="answer.wav")
    arguments = parser.parse_args()
    answer = asyncio.run(talk(arguments.url, read_question(arguments.question)))
    with wave.open(arguments.out, "wb") as file:
        file.setframerate(RATE)
        file.setnchannels(1)
        file.setsampwidth(2)
        file.writeframes(answer)


if __name__ == "__main__":
    main()
