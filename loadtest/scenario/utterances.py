"""What callers say, encoded once: a message for every 20 ms frame, shared by all callers of a process.

A load generator that encodes audio while it paces thousands of callers measures itself.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import soxr

from loadtest.scenario.clips import Clip, make_clip, read_clip
from loadtest.scenario.microphone import FRAME_MS
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE, float_to_pcm16, pcm16_to_float
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.store import open_store
from rejoinder.store.human_clips import moonshine_clips

FRAME_S = FRAME_MS / 1000

# Of the store's readings, the sentences that end like a finished turn. The others are judged unfinished by most turn
# models, rightly: they are, and one such clip would decide every p95. Your own: --set clips.
_FINISHED = ("@0.8", "@4.6", "@8.3", "@13.1", "@20.9")


@dataclass(frozen=True, slots=True)
class Utterance:
    """A clip as it is sent; edges of speech in seconds from its first sample."""

    name: str
    messages: tuple[bytes, ...]
    speech_start_s: float
    speech_end_s: float

    @property
    def seconds(self) -> float:
        return len(self.messages) * FRAME_S


@dataclass(frozen=True, slots=True)
class Speech:
    """All that the callers of a run say: utterances, and a frame of silence."""

    wire: AudioFormat
    utterances: tuple[Utterance, ...]
    silence: bytes


def encode(clips: Sequence[Clip], wire: AudioFormat) -> Speech:
    """Encode clips for the wire; raises ConfigError if there are none."""
    if not clips:
        raise ConfigError("there is nothing to say.", "Name at least one WAV file.", field="--set clips")
    silence = frames(bytes(WIRE_RATE * FRAME_MS // 1000 * SAMPLE_BYTES), wire)[0]
    return Speech(wire, tuple(_utterance(clip, wire) for clip in clips), silence)


def default_clips() -> list[Clip]:
    """Human speech of the model store; raises ModelError if it was not fetched."""
    folder = open_store(ModelStoreSettings()).path("human-clips")
    return [
        make_clip(clip.name, clip.pcm(WIRE_RATE).tobytes(), clip.text)
        for clip in moonshine_clips(folder)
        if clip.name.endswith(_FINISHED)
    ]


def read_clips(paths: Iterable[str]) -> list[Clip]:
    """The named WAV files, or the default ones if none are named."""
    named = [read_clip(Path(path)) for path in paths]
    return named or default_clips()


def frames(pcm: bytes, wire: AudioFormat) -> list[bytes]:
    """Messages of 20 ms each from 24 kHz PCM; the last one is filled up with silence."""
    samples = wire.rate * FRAME_MS // 1000
    audio = _encoded(pcm, wire)
    size = samples * wire.sample_bytes
    quiet = _encoded(bytes(SAMPLE_BYTES * WIRE_RATE // 50), wire)[: wire.sample_bytes]
    audio += quiet * (-len(audio) % size // wire.sample_bytes)
    return [append_message(audio[at : at + size]) for at in range(0, len(audio), size)]


def append_message(audio: bytes) -> bytes:
    """An `input_audio_buffer.append` event."""
    return b'{"type":"input_audio_buffer.append","audio":"' + base64.b64encode(audio) + b'"}'


def _encoded(pcm: bytes, wire: AudioFormat) -> bytes:
    if wire.law is None:
        return pcm
    samples = soxr.resample(pcm16_to_float(pcm), WIRE_RATE, wire.rate)
    return wire.law.encode(float_to_pcm16(samples))


def _utterance(clip: Clip, wire: AudioFormat) -> Utterance:
    edges = (clip.speech_start / WIRE_RATE, (clip.speech_end - 1) / WIRE_RATE)
    return Utterance(clip.name, tuple(frames(clip.pcm, wire)), *edges)
