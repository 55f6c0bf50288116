"""The callers' utterances, encoded once as one message per 20 ms frame and shared by all callers of a process.

If utterances were encoded during the run, encoding would take CPU time from the pacing of thousands of callers. The
generator would then measure its own load.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr

from loadtest.scenario.clips import Clip, make_clip, read_clip
from loadtest.scenario.microphone import FRAME_MS
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE, Samples, float_to_pcm16, pcm16_to_float
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.core.wire.formats import AudioFormat
from rejoinder.store import open_store
from rejoinder.store.human_clips import moonshine_clips

FRAME_S = FRAME_MS / 1000

# Endings of the names of the model store's recordings that end with a complete sentence. The others end mid-sentence,
# so most turn detectors correctly judge them incomplete and wait. One such clip would dominate every p95. Use
# --set clips to load test with other recordings.
_FINISHED = ("@0.8", "@4.6", "@8.3", "@13.1", "@20.9")


@dataclass(frozen=True, slots=True)
class Utterance:
    """A clip, encoded as the messages in which it is sent.

    Attributes:
        name: Name of the clip.
        messages: One `input_audio_buffer.append` event for each 20 ms frame.
        speech_start_s: First sample of speech, in seconds after the first sample of the clip.
        speech_end_s: Last sample of speech, in seconds after the first sample of the clip.
    """

    name: str
    messages: tuple[bytes, ...]
    speech_start_s: float
    speech_end_s: float

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds, rounded up to whole frames."""
        return len(self.messages) * FRAME_S


@dataclass(frozen=True, slots=True)
class Speech:
    """All audio messages that the callers of a process send.

    Attributes:
        wire: Audio format of the messages.
        utterances: The encoded utterances.
        silence: The message with one 20 ms frame of silence.
        background: The messages with the sound around callers who say nothing, which they repeat; empty for silence.
    """

    wire: AudioFormat
    utterances: tuple[Utterance, ...]
    silence: bytes
    background: tuple[bytes, ...] = ()

    def quiet(self, frame: int) -> bytes:
        """Return the message that a caller who says nothing sends as frame number `frame` of its call."""
        return self.background[frame % len(self.background)] if self.background else self.silence


def encode(clips: Sequence[Clip], wire: AudioFormat, background: Samples | None = None) -> Speech:
    """Encode clips as messages in the audio format `wire`.

    Args:
        clips: The clips.
        wire: Format of the audio.
        background: Sound around the callers at 24 kHz, which is repeated. It is added to the clips, and takes the place
            of silence. None for no sound.

    Raises:
        ConfigError: `clips` is empty.
    """
    if not clips:
        raise ConfigError("the list of clips is empty.", "Give at least one recording.", field="--set clips")
    around: tuple[bytes, ...] = ()
    if background is not None:
        around = tuple(frames(float_to_pcm16(background), wire))
        clips = [replace(clip, pcm=_mixed(clip.pcm, background)) for clip in clips]
    silence = frames(bytes(WIRE_RATE * FRAME_MS // 1000 * SAMPLE_BYTES), wire)[0]
    return Speech(wire, tuple(_utterance(clip, wire) for clip in clips), silence, around)


def _mixed(pcm: bytes, background: Samples) -> bytes:
    """Return 24 kHz PCM with a background, which is repeated if it is shorter. Too loud samples are clipped."""
    speech = pcm16_to_float(pcm)
    return float_to_pcm16(np.clip(speech + np.resize(background, speech.size), -1.0, 1.0))


def default_clips() -> list[Clip]:
    """Return the model store's human speech, complete sentences only. Raise ModelError if it is not downloaded."""
    folder = open_store(ModelStoreSettings()).path("human-clips")
    return [
        make_clip(clip.name, clip.pcm(WIRE_RATE).tobytes(), clip.text)
        for clip in moonshine_clips(folder)
        if clip.name.endswith(_FINISHED)
    ]


def read_clips(paths: Iterable[str]) -> list[Clip]:
    """Read recordings of any format. Return the default clips if `paths` is empty.

    Raises:
        ConfigError: A file cannot be read, or contains no audible sample.
    """
    clips = [read_clip(Path(path)) for path in paths]
    return clips or default_clips()


def frames(pcm: bytes, wire: AudioFormat) -> list[bytes]:
    """Split 24 kHz PCM into frames of 20 ms, and return one `input_audio_buffer.append` message for each.

    The audio is encoded in the format `wire`. The last frame is padded with silence.
    """
    samples = wire.rate * FRAME_MS // 1000
    audio = _encoded(pcm, wire)
    size = samples * wire.sample_bytes
    silent_sample = _encoded(bytes(SAMPLE_BYTES * WIRE_RATE // 50), wire)[: wire.sample_bytes]
    audio += silent_sample * (-len(audio) % size // wire.sample_bytes)
    return [append_message(audio[at : at + size]) for at in range(0, len(audio), size)]


def append_message(audio: bytes) -> bytes:
    """Return an `input_audio_buffer.append` event, as JSON, with audio that is already encoded."""
    return b'{"type":"input_audio_buffer.append","audio":"' + base64.b64encode(audio) + b'"}'


def _encoded(pcm: bytes, wire: AudioFormat) -> bytes:
    if wire.law is None:
        return pcm
    samples = soxr.resample(pcm16_to_float(pcm), WIRE_RATE, wire.rate)
    return wire.law.encode(float_to_pcm16(samples))


def _utterance(clip: Clip, wire: AudioFormat) -> Utterance:
    edges = (clip.speech_start / WIRE_RATE, (clip.speech_end - 1) / WIRE_RATE)
    return Utterance(clip.name, tuple(frames(clip.pcm, wire)), *edges)
