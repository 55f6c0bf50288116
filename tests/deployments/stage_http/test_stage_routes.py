"""Tests of the routes of single stages with the unmodified openai-python client, over fake stages in this process."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections import deque
from collections.abc import Callable
from typing import Any

import av
import httpx2
import numpy as np
import openai
import pytest
from openai.types.chat import ChatCompletion

from actors.stages.ports import Priority, TokenDelta
from rejoinder.core.errors import BackendError, Overloaded
from rejoinder.core.settings.settings import parse_settings
from tests.actors.fakes import ANSWER, ScriptedStt, voice
from tests.actors.replying.test_backend_faults import play_of, said
from tests.actors.stage_play import Play
from tests.deployments.stage_http.clients import client, serving

HI: Any = [{"role": "user", "content": "Hi"}]
TOOLS: Any = [{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}, "strict": True}}]


def recording(seconds: float, rate: int = 8000) -> tuple[str, bytes, str]:
    """Return a WAV file with a tone, in the form of an upload."""
    tone = (np.sin(np.arange(round(seconds * rate)) * 0.3) * 8000).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(tone.tobytes())
    return ("speech.wav", file.getvalue(), "audio/wav")


async def _until(true: Callable[[], bool]) -> None:
    """Wait until a condition holds, for at most five seconds."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # the fakes have no events
            await asyncio.sleep(0.01)


async def test_a_recording_is_transcribed_in_every_form() -> None:
    """Every response format has the words. The recognizer gets 16 kHz audio behind the callers' transcripts."""
    play = Play()
    async with serving(play) as url:
        create = client(url).audio.transcriptions.create
        plain = await create(file=recording(2), model="whisper-1", language="en", temperature=0)
        assert plain.text == "What time is it?"
        verbose = await create(
            file=recording(2), model="m", response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
        assert [word.word for word in verbose.words or []] == ["What", "time", "is", "it?"]
        assert [segment.text for segment in verbose.segments or []] == ["What time is it?"]
        assert verbose.duration == pytest.approx(2.0, abs=0.05)
        texts = [str(await create(file=recording(2), model="m", response_format=f)) for f in ("text", "srt", "vtt")]
    assert texts[0] == "What time is it?\n"
    assert texts[1].startswith("1\n00:00:00,000 --> ")
    assert texts[2].startswith("WEBVTT\n")
    assert all(job.priority is Priority.RECORDING for job in play.stt.jobs)
    assert [round(len(job.pcm) / 32_000, 1) for job in play.stt.jobs] == [2.0] * 5
    assert [job.word_times for job in play.stt.jobs] == [False, True, False, True, True]


async def test_a_long_recording_is_streamed_part_by_part() -> None:
    """The words of a part are sent before the last part is recognized, and all deltas together are the transcript."""
    play = Play(stt=ScriptedStt(deque(["One two three.", "Four five six.", "Seven eight nine."])))
    async with serving(play) as url:
        stream = await client(url).audio.transcriptions.create(file=recording(40), model="m", stream=True)
        events = [event async for event in stream]
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert events[-1].type == "transcript.text.done"
    assert len(deltas) > 1
    assert "".join(deltas) == events[-1].text == "One two three. Four five six. Seven eight nine."
    assert len(play.stt.jobs) == 3


@pytest.mark.parametrize("form", ["pcm", "wav", "flac", "opus", "mp3"])
async def test_a_text_is_spoken_in_every_format(form: Any) -> None:
    """The audio is a complete file in the format, and what is spoken is the spoken form of the text."""
    play = Play()
    async with serving(play) as url:
        reply = await client(url).audio.speech.create(
            model="tts-1", voice="alloy", input="It costs $5.", response_format=form
        )
    assert play.tts.texts == ["It costs five dollars."]
    if form == "pcm":
        seconds = len(reply.content) / 48_000
    else:
        with av.open(io.BytesIO(reply.content), "r") as file:
            seconds = sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0))
    assert seconds == pytest.approx(len(voice("It costs five dollars.")) / 48_000, abs=0.1)


async def test_audio_comes_before_the_text_is_spoken_to_its_end() -> None:
    """The first bytes arrive while later segments are not synthesized yet."""
    play = Play()
    text = "This is the first sentence. " * 8
    async with (
        serving(play) as url,
        client(url).audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=text, response_format="pcm"
        ) as reply,
    ):
        chunks = reply.iter_bytes(480)
        await anext(chunks)
        assert len(play.tts.texts) < 8
        async for _ in chunks:
            pass
    assert len(play.tts.texts) >= 8


async def test_speech_as_events() -> None:
    """With `stream_format: sse` the audio comes as events, and the last one has the usage."""
    body = {"model": "m", "voice": "x", "input": "Hello.", "response_format": "pcm", "stream_format": "sse"}
    async with serving(Play()) as url, httpx2.AsyncClient() as http:
        reply = await http.post(f"{url}/audio/speech", json=body)
    events = [json.loads(line.removeprefix("data: ")) for line in reply.text.split("\n\n") if line]
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert events[-1]["type"] == "speech.audio.done"


async def test_a_chat_completion_whole_and_streamed() -> None:
    """The answer is the same whole and streamed, with the token counts if they are asked for."""
    play = Play()
    async with serving(play) as url:
        create = client(url).chat.completions.create
        whole = await create(model="gpt-4o", messages=HI)
        assert whole.choices[0].message.content == ANSWER
        assert whole.usage is not None
        stream = await create(model="gpt-4o", messages=HI, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage
    (_, first), (_, second) = play.llm.requests
    assert first.session == second.session
    assert not first.for_call


async def test_a_stop_sequence_ends_the_answer_and_the_engine() -> None:
    """Nothing from the stop sequence on is sent, and the engine stops."""
    play = Play()
    async with serving(play) as url:
        reply = await client(url).chat.completions.create(model="m", messages=HI, stop=["noon."])
        assert reply.choices[0].message.content == "It is "
        assert reply.choices[0].finish_reason == "stop"
        await _until(lambda: not play.llm.running)


@pytest.mark.parametrize("streamed", [False, True])
async def test_tool_calls_reach_the_client(streamed: bool) -> None:
    """A call comes with an id and its arguments, and its text in the answer is not content."""
    text = 'Sure. <tool_call>\n{"name": "get_time", "arguments": {"city": "Paris"}}\n</tool_call>'
    play = play_of((*said(text), TokenDelta("", 0, "stop")))
    async with serving(play) as url:
        create = client(url).chat.completions.create
        if streamed:
            state = openai.lib.streaming.chat.ChatCompletionStreamState()
            async for chunk in await create(model="m", messages=HI, tools=TOOLS, stream=True):
                state.handle_chunk(chunk)
            reply: ChatCompletion = state.get_final_completion()
        else:
            reply = await create(model="m", messages=HI, tools=TOOLS)
    choice = reply.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert (choice.message.content or "").strip() == "Sure."
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_time", {"city": "Paris"})
    assert call.id


async def test_a_client_that_goes_away_stops_the_work() -> None:
    """A disconnect cancels a transcription in the recognizer and an answer in the language model, and frees places."""
    settings = parse_settings({"stage_http": {"transcriptions": 1, "chats": 1}})
    play = Play(settings=settings, stt=ScriptedStt(delay_s=30))
    play.llm.gap_s = 30
    async with serving(play) as url:
        asking = asyncio.create_task(client(url).audio.transcriptions.create(file=recording(1), model="m"))
        stream = await client(url).chat.completions.create(model="m", messages=HI, stream=True)
        assert await anext(stream)
        assert play.llm.running == 1
        await stream.close()
        await _until(lambda: bool(play.stt.avoided))
        asking.cancel()
        await _until(lambda: not play.llm.running and play.stt.cancelled == 1)
        play.llm.gap_s, play.stt.delay_s = 0.0, 0.0
        assert (await client(url).audio.transcriptions.create(file=recording(1), model="m")).text
        assert (await client(url).chat.completions.create(model="m", messages=HI)).choices


async def test_keys_and_models() -> None:
    """The routes need a key with the scope of calls. A model that does not exist is OpenAI's error 404."""
    async with serving(Play(), "alpha, meter scope=metrics") as url:
        for key, status in (("wrong", 401), ("meter", 403)):
            with pytest.raises(openai.APIStatusError) as refused:
                await client(url, key).chat.completions.create(model="m", messages=HI)
            assert refused.value.status_code == status
        assert (await client(url, "alpha").models.retrieve("rejoinder")).id == "rejoinder"
        with pytest.raises(openai.NotFoundError) as missing:
            await client(url, "alpha").models.retrieve("gpt-4o")
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


async def test_overload_is_refused_with_a_hint() -> None:
    """A full stage, or a host without a free place, refuses with 503 and Retry-After, before anything is sent."""
    play = Play(settings=parse_settings({"stage_http": {"chats": 1}}))
    play.tts.fault = Overloaded("full.", retry_after_s=3.0)
    play.stt.fault = Overloaded("full.", retry_after_s=3.0)
    play.llm.gap_s = 30
    async with serving(play) as url:
        stream = await client(url).chat.completions.create(model="m", messages=HI, stream=True)
        for number, call in enumerate(
            (
                client(url).audio.speech.create(model="m", voice="x", input="Hello."),
                client(url).audio.transcriptions.create(file=recording(1), model="m"),
                client(url).chat.completions.create(model="m", messages=HI),
            )
        ):
            with pytest.raises(openai.InternalServerError) as refused:
                await call
            assert refused.value.status_code == 503
            assert refused.value.response.headers["Retry-After"] == ("3", "3", "2")[number]
        await stream.close()


async def test_bodies_are_limited_and_checked() -> None:
    """A body that is too large gets 413. A file, a form or JSON that cannot be read is named in the error."""
    settings = {"recording_bytes": 65_536, "json_bytes": 4096, "recording_s": 3}
    async with serving(Play(settings=parse_settings({"stage_http": settings}))) as url, httpx2.AsyncClient() as http:
        large = recording(20)

        async def pieces() -> Any:
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(300):
                yield b"x" * 1000

        heard = f"{url}/audio/transcriptions"
        found = [
            await http.post(heard, files={"file": large}),
            await http.post(heard, content=pieces(), headers={"content-type": "multipart/form-data; boundary=b"}),
            await http.post(f"{url}/chat/completions", json={"messages": HI, "user": "x" * 5000}),
            await http.post(heard, files={"file": ("a.wav", b"not audio", "audio/wav")}),
            await http.post(heard, files={"file": recording(3.5)}),
            await http.post(heard, data={"model": "m"}, files={"other": recording(1)}),
            await http.post(heard, content=b"garbage", headers={"content-type": "multipart/form-data; boundary=b"}),
            await http.post(heard, data={f"f{n}": "x" for n in range(99)}, files={"file": recording(1)}),
            await http.post(heard, json={}),
            await http.post(f"{url}/audio/speech", content=b"{"),
            await http.post(f"{url}/audio/speech", json={"input": "🙂", "voice": "x"}),
        ]
    assert [(reply.status_code, reply.json()["error"]["code"]) for reply in found] == [
        *[(413, "body_too_large")] * 3,
        (400, "invalid_audio"),
        (400, "audio_too_long"),
        (400, "missing_required_parameter"),
        *[(400, "invalid_form")] * 2,
        (415, "unsupported_media_type"),
        (400, "invalid_json"),
        (400, "invalid_value"),
    ]


RECORDED: list[tuple[str, str, dict[str, Any]]] = [
    (
        "livekit-plugins-openai STT",
        "audio/transcriptions",
        {"model": "gpt-4o-mini-transcribe", "language": "en", "response_format": "json"},
    ),
    ("pipecat OpenAISTTService", "audio/transcriptions", {"model": "gpt-4o-transcribe", "language": "en"}),
    (
        "livekit-plugins-openai TTS",
        "audio/speech",
        {
            "input": "Hello there.",
            "model": "gpt-4o-mini-tts",
            "voice": "ash",
            "response_format": "mp3",
            "speed": 1.0,
            "instructions": "Be kind.",
            "stream_format": "sse",
        },
    ),
    (
        "pipecat OpenAITTSService",
        "audio/speech",
        {"input": "Hello there.", "model": "gpt-4o-mini-tts", "voice": "alloy", "response_format": "pcm"},
    ),
    (
        "livekit-plugins-openai LLM",
        "chat/completions",
        {
            "messages": [{"role": "system", "content": "Be kind."}, *HI],
            "model": "gpt-4.1",
            "tools": TOOLS,
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "stream_options": {"include_usage": True},
            "stream": True,
            "temperature": 0.6,
            "user": "agent",
            "prompt_cache_key": "room-1",
        },
    ),
    (
        "pipecat OpenAILLMService",
        "chat/completions",
        {
            "model": "gpt-4.1",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "developer", "content": "Be kind."}, *HI],
            "tools": TOOLS,
            "max_completion_tokens": 200,
            "top_p": 1.0,
            "seed": 7,
        },
    ),
]
"""Requests that the cascaded services of LiveKit Agents and Pipecat send: their name, the route and the fields."""


@pytest.mark.parametrize(("service", "route", "fields"), RECORDED, ids=[entry[0] for entry in RECORDED])
async def test_recorded_requests_are_served(service: str, route: str, fields: dict[str, Any]) -> None:
    """Every request that LiveKit's and Pipecat's cascaded services send is answered with status 200 and content."""
    async with serving(Play()) as url, httpx2.AsyncClient() as http:
        if route == "audio/transcriptions":
            reply = await http.post(f"{url}/{route}", data=fields, files={"file": recording(1)})
            assert reply.json()["text"] == "What time is it?"
        else:
            reply = await http.post(f"{url}/{route}", json=fields)
            assert len(reply.content) > 500
    assert reply.status_code == 200, (service, reply.text)


async def test_a_failed_replica_costs_nothing_but_time() -> None:
    """A voice that fails within a segment goes on after the samples sent, and a recognizer is asked again."""
    play = Play()
    play.tts.failures, play.tts.fail_after, play.stt.failures = 1, 5, 1
    async with serving(play) as url:
        speech = await client(url).audio.speech.create(
            model="m", voice="x", input="It costs five dollars.", response_format="pcm"
        )
        heard = await client(url).audio.transcriptions.create(file=recording(1), model="m")
    assert speech.content == voice("It costs five dollars.")
    assert heard.text == "What time is it?"
    assert play.stt.avoided[1] == {"stt-1"}


async def test_an_answer_goes_on_after_a_failure() -> None:
    """If a replica dies within an answer, another one continues it: no word comes twice, whole or streamed."""
    play = Play()
    play.llm.break_after = {"a": 4}
    async with serving(play) as url:
        stream = await client(url).chat.completions.create(model="m", messages=HI, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == ANSWER


async def test_a_failure_after_the_first_words_is_an_event() -> None:
    """If nothing continues an answer that has begun, the stream ends with an error, and not as if it were complete."""
    play = Play()
    play.llm.break_after = {"a": 4}
    async with serving(play) as url:
        stream = await client(url).chat.completions.create(model="m", messages=HI, stream=True)
        await anext(stream)
        play.llm.fault = BackendError("gone.", stage="llm")
        with pytest.raises(openai.APIError, match="did not answer"):
            async for _ in stream:
                pass


async def test_a_recording_gives_way_to_calls_and_is_finished() -> None:
    """A part that a call's transcript displaces from the full queue is transcribed later. Only the first is refused."""
    play = Play(stt=ScriptedStt(deque(["One two three.", "Four five six."])))
    async with serving(play) as url:
        stream = await client(url).audio.transcriptions.create(file=recording(25), model="m", stream=True)
        events = []
        async for event in stream:
            events.append(event)
            play.stt.fault = None if play.stt.fault else Overloaded("displaced.")
            asyncio.get_running_loop().call_later(0.3, setattr, play.stt, "fault", None)
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == "One two three. Four five six."
