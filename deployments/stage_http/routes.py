"""The routes `/v1/audio/transcriptions`, `/v1/audio/speech` and `/v1/chat/completions`."""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import BinaryIO

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from actors.host import Host
from actors.stage_requests.completions import completion
from actors.stage_requests.recordings import transcribe_recording
from actors.stage_requests.spoken_text import segments_of, spoken_audio
from actors.stages.services import Services
from deployments.serving.gate import refusal_of
from deployments.stage_http.audio_files import SpeechEncoder
from deployments.stage_http.recording_files import decode_recording
from deployments.stage_http.requests import (
    RequestRefused,
    StageGate,
    answered,
    event_lines,
    json_body,
    streamed,
    while_connected,
)
from rejoinder.core.access.access_control import AccessControl
from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE, WIRE_RATE
from rejoinder.core.http_api.chat import ChatOrder
from rejoinder.core.http_api.chat_answer import ChatAnswer, TokenCounts
from rejoinder.core.http_api.places import StageRoute
from rejoinder.core.http_api.speech import MEDIA_TYPES, SpeechOrder, done_event
from rejoinder.core.http_api.subtitles import srt, vtt
from rejoinder.core.http_api.transcription import RecordingPart, TranscriptionOrder, cues, joined, usage, verbose
from rejoinder.core.wire.fields import Fields, Json, refuse

_EVENTS = "text/event-stream"
_FORM_ROOM = 65_536
"""Bytes that the fields of a form may have besides the recording."""
_MOST_FIELDS = 32


def add_stage_routes(web: FastAPI, host: Host, access: AccessControl) -> None:
    """Add the routes, if the settings serve them.

    Args:
        web: The application.
        host: The host, over whose ports the stages are asked.
        access: The keys of the host. A request needs one with the scope `talk`, if there are keys.
    """
    gate = StageGate(host, access)
    if not gate.settings.enabled:
        return

    @web.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        """Return the transcript of an uploaded recording."""
        return await answered(request, gate.settings.recording_bytes + _FORM_ROOM, partial(_transcribe, gate))

    @web.post("/v1/audio/speech")
    async def speech(request: Request) -> Response:
        """Return the audio of a text, while it is synthesized."""
        return await answered(request, gate.settings.json_bytes, partial(_speak, gate))

    @web.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        """Return an answer of the language model, whole or while it is written."""
        return await answered(request, gate.settings.json_bytes, partial(_complete, gate))


async def _transcribe(gate: StageGate, request: Request) -> Response:
    services = gate.host.services
    async with AsyncExitStack() as stack:
        await gate.enter(request, StageRoute.TRANSCRIPTION, stack)
        fields, file = await _form(request, stack)
        language = services.settings.stt.language
        order = TranscriptionOrder.parse(fields, language)
        pcm = await asyncio.to_thread(decode_recording, file, gate.settings.recording_s)
        seconds = len(pcm) / SAMPLE_BYTES / STT_RATE
        if order.events:
            lines = event_lines(_transcript_events(services, pcm), done=False)
            return await streamed(request, lines, stack, _EVENTS)
        parts = await while_connected(request, _parts(services, pcm, timed=order.timed))
        if order.form == "verbose_json":
            return JSONResponse(verbose(parts, order, seconds, language))
        if order.form == "srt":
            return PlainTextResponse(srt(cues(parts)), media_type="application/x-subrip")
        if order.form == "vtt":
            return PlainTextResponse(vtt(cues(parts)), media_type="text/vtt")
        if order.form == "text":
            return PlainTextResponse(joined(parts) + "\n")
        return JSONResponse({"text": joined(parts), "usage": usage(seconds)})


async def _form(request: Request, stack: AsyncExitStack) -> tuple[Fields, BinaryIO]:
    """Return the fields of a multipart form, and its file. The file is deleted when the stack is closed."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        error = "The body is not a form. Send multipart/form-data with the recording in the field file."
        raise RequestRefused(refusal_of(415, "unsupported_media_type", error))
    try:
        form = await request.form(max_files=1, max_fields=_MOST_FIELDS, max_part_size=_FORM_ROOM)
    except (HTTPException, MultipartParseError) as fault:
        # Starlette turns its own errors of a form into HTTPException.
        raise refuse(f"The form cannot be read ({fault}).", "", code="invalid_form") from None
    stack.push_async_callback(form.close)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise refuse("file is required.", "file", code="missing_required_parameter", remedy="Send a recording.")
    values: Json = {"file": ""}
    for name, value in form.multi_items():
        if not isinstance(value, str):
            continue
        if name.endswith("[]"):
            values.setdefault(name[:-2], []).append(value)
        elif name in ("timestamp_granularities", "include"):
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    return Fields(values, ""), file.file


async def _parts(services: Services, pcm: bytes, *, timed: bool) -> list[RecordingPart]:
    async with aclosing(transcribe_recording(services, pcm, timed=timed)) as parts:
        return [part async for part in parts]


async def _transcript_events(services: Services, pcm: bytes) -> AsyncGenerator[Json, None]:
    """Yield the events of a transcript. The words at the end of a part are sent once the next part confirms them."""
    sent, heard = "", list[RecordingPart]()
    async with aclosing(transcribe_recording(services, pcm, timed=False)) as parts:
        async for part in parts:
            heard.append(part)
            # The text of all parts but the newest does not change any more, except for its last words.
            settled = _common(joined(heard), joined(heard[:-1])) if part.overlaps else joined(heard)
            if len(settled) > len(sent) and settled.startswith(sent):
                yield {"type": "transcript.text.delta", "delta": settled[len(sent) :]}
                sent = settled
    whole = joined(heard)
    if whole != sent:
        yield {"type": "transcript.text.delta", "delta": whole.removeprefix(sent)}
    seconds = len(pcm) / SAMPLE_BYTES / STT_RATE
    yield {"type": "transcript.text.done", "text": whole, "usage": usage(seconds)}


def _common(text: str, other: str) -> str:
    size = next((at for at, (mine, its) in enumerate(zip(text, other, strict=False)) if mine != its), len(other))
    return text[:size]


async def _speak(gate: StageGate, request: Request) -> Response:
    async with AsyncExitStack() as stack:
        await gate.enter(request, StageRoute.SPEECH, stack)
        order = SpeechOrder.parse(await json_body(request), gate.settings.input_characters)
        segments = segments_of(gate.host.services, order.text)
        if not segments:
            raise refuse("input has no word to speak.", "input", remedy="Send letters or digits.")
        audio = spoken_audio(gate.host.services, segments, order)
        encoder = SpeechEncoder(order.encoding)
        if order.events:
            events = _speech_events(_encoded(audio, encoder), encoder, len(order.text))
            return await streamed(request, event_lines(events, done=False), stack, _EVENTS)
        return await streamed(request, _encoded(audio, encoder), stack, MEDIA_TYPES[order.encoding])


async def _encoded(audio: AsyncGenerator[bytes, None], encoder: SpeechEncoder) -> AsyncGenerator[bytes, None]:
    async with aclosing(audio):
        async for pcm in audio:
            if piece := encoder.push(pcm):
                yield piece
    if piece := encoder.finish():
        yield piece


async def _speech_events(
    audio: AsyncGenerator[bytes, None], encoder: SpeechEncoder, characters: int
) -> AsyncGenerator[Json, None]:
    async with aclosing(audio):
        async for piece in audio:
            yield {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()}
    yield done_event(characters, encoder.samples / WIRE_RATE)


async def _complete(gate: StageGate, request: Request) -> Response:
    async with AsyncExitStack() as stack:
        tenant = await gate.enter(request, StageRoute.CHAT, stack)
        order = ChatOrder.parse(await json_body(request), gate.settings.answer_tokens)
        answer = ChatAnswer(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), order.model)
        if order.events:
            events = _chat_events(gate.host.services, order, answer, tenant)
            return await streamed(request, event_lines(events, done=True), stack, _EVENTS)
        return await while_connected(request, _whole(gate.host.services, order, answer, tenant))


async def _whole(services: Services, order: ChatOrder, answer: ChatAnswer, tenant: str) -> Response:
    text, last = "", None
    async with aclosing(completion(services, order, tenant, answer.answer_id)) as pieces:
        async for piece in pieces:
            text = text[: piece.replaces] + piece.text
            last = piece
    assert last is not None  # a generation without a last piece raises BackendError
    return JSONResponse(answer.whole(text, last.calls, last.finish, last.counts or TokenCounts(0, 0)))


async def _chat_events(
    services: Services, order: ChatOrder, answer: ChatAnswer, tenant: str
) -> AsyncGenerator[Json, None]:
    begun = False
    async with aclosing(completion(services, order, tenant, answer.answer_id)) as pieces:
        async for piece in pieces:
            if not begun:
                yield answer.begin()
                begun = True
            if piece.text:
                yield answer.text(piece.text)
            if piece.calls:
                yield answer.calls(piece.calls)
            if piece.finish:
                yield answer.end(piece.finish)
                if order.counts and piece.counts:
                    yield answer.counts(piece.counts)
