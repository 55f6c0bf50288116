"""A scripted conversation for tests: clips made of tones, and server events at given times."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from loadtest.callers.scripted_caller import ScriptedBehavior, ScriptedCaller, ScriptedLine, Truncate
from loadtest.scenario.clips import Clip, make_clip
from rejoinder.core.audio.pcm import WIRE_RATE, float_to_pcm16

BEGAN = 100.0
_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def tone(seconds: float, level: float = 0.3) -> bytes:
    """Return a tone as 24 kHz PCM, audible from its first sample to its last. `level` is its amplitude, 0 to 1."""
    return float_to_pcm16(level * np.sin(np.arange(round(seconds * WIRE_RATE)) * 0.1))


def silence(seconds: float) -> bytes:
    return bytes(2 * round(seconds * WIRE_RATE))


def clip(name: str = "a.wav", seconds: float = 1.0, before: float = 0.0, after: float = 0.0) -> Clip:
    return make_clip(name, silence(before) + tone(seconds) + silence(after))


class Scene:
    """A scripted caller and its server's events. All times are in seconds after the start of the conversation.

    Call the methods in the order of their times. Each one first sends the caller's frames that are due earlier, then
    delivers its server event. `dialogue` is the caller.
    """

    def __init__(self, *lines: ScriptedLine, behavior: ScriptedBehavior | None = None) -> None:
        self.dialogue = ScriptedCaller(list(lines), behavior or ScriptedBehavior(), BEGAN)
        self._count = 0

    def run(self, until: float) -> None:
        """Send all frames that are due before `until`."""
        while self.dialogue.microphone.due < BEGAN + until and not self.dialogue.finished:
            self.dialogue.next_frame()

    def event(self, at: float, kind: str, **fields: Any) -> Truncate | None:
        """Deliver a server event of the type `kind`, with these `fields`, at the time `at`.

        Return the command with which the caller truncates the reply that plays, or None if it sends none.
        """
        self.run(at)
        self._count += 1
        document = {"type": kind, "event_id": f"event_{self._count}"} | fields
        return self.dialogue.take(_EVENT.validate_python(document), BEGAN + at)

    def hears(self, at: float, item: str) -> Truncate | None:
        """Deliver `speech_started`: the server has detected the start of the utterance with the id `item`.

        Return the caller's command to truncate a reply that plays, or None.
        """
        fields = {"item_id": item, "audio_start_ms": max(0, round(at * 1000) - 300)}
        return self.event(at, "input_audio_buffer.speech_started", **fields)

    def commits(self, at: float, item: str, text: str, audio_end_ms: int | None = None) -> None:
        """Deliver `speech_stopped` of the utterance `item`, and its transcript `text`.

        `audio_end_ms` is the end of the speech in milliseconds of the caller's audio, by default `at`.
        """
        end = round(at * 1000) if audio_end_ms is None else audio_end_ms
        self.event(at, "input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=end)
        self.event(
            at,
            "conversation.item.input_audio_transcription.completed",
            item_id=item,
            content_index=0,
            transcript=text,
            usage={"type": "duration", "seconds": 1.0},
        )

    def replies(self, at: float, response: str, text: str, *chunks: bytes) -> None:
        """Deliver the start of the response with the id `response`, its transcript and its audio (24 kHz PCM)."""
        self.event(at, "response.created", response={"id": response, "object": "realtime.response"})
        where = {"response_id": response, "item_id": f"said_{response}", "output_index": 0, "content_index": 0}
        self.event(at, "response.output_audio_transcript.delta", delta=text, **where)
        for pcm in chunks:
            self.event(at, "response.output_audio.delta", delta=base64.b64encode(pcm).decode(), **where)

    def done(
        self,
        at: float,
        response: str,
        report: dict[str, Any] | None = None,
        status: str = "completed",
        *,
        used: dict[str, Any] | None = None,
    ) -> None:
        """Deliver `response.done` of the response with the id `response`.

        `report` is its `rejoinder` field, and `used` its token usage. Either is left out if it is None.
        """
        extra = {} if report is None else {"rejoinder": report}
        body = {"id": response, "object": "realtime.response", "status": status, "usage": used}
        self.event(at, "response.done", response=body, **extra)


def report(item: str, speech_end_ms: float, **stages: float) -> dict[str, Any]:
    """Return the `rejoinder` field of a response that answers the utterance `item`.

    `speech_end_ms` is the end of speech in the caller's audio. `stages` are times of stages in ms, by default 0.
    """
    names = ("silence", "endpoint", "stt", "llm_first_token", "first_segment", "tts_first_audio", "delivery")
    shares = {name: stages.get(name, 0.0) for name in names}
    unattributed = stages.get("unattributed", 0.0)
    return {
        "interrupted": False,
        "stop_ms": None,
        "hedged": True,
        "llm_total_ms": 321.0,
        "engines": {"llm": "fake"},
        "item_id": item,
        "speech_end_ms": speech_end_ms,
        "server_ms": sum(shares.values()) + unattributed,
        "unattributed_ms": unattributed,
        "stages_ms": shares,
        "raw_ms": shares,
    }
