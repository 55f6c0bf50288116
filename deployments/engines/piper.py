"""Piper: text to speech on the CPU, a sentence at a time.

piper-tts is GPL-3.0 and therefore an optional extra, imported only when a voice is opened.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from deployments.engines.onnx import model_file, open_session
from rejoinder.core.audio import SAMPLE_BYTES, WIRE_RATE, Samples, first_audible, float_to_pcm16
from rejoinder.core.errors import CallerError, ConfigError, ModelError

LEAD_MS = 20
"""Silence kept before the first sound: enough for the attack of a consonant; the rest is latency."""

MIN_SPEED, MAX_SPEED = 0.25, 1.5
"""The range of OpenAI Realtime's `speed`."""

MAX_CHARACTERS = 2000
"""Two minutes of speech; a sentence is the unit of cancellation, so a text without an end would hold the slot."""

_INPUTS = ("input", "input_lengths", "scales")


class PiperVoice:
    """One voice; safe to call from several threads (phonemization is serialised inside piper)."""

    def __init__(self, directory: Path, threads: int = 2, chunk_ms: int = 200) -> None:
        """`directory` holds VOICE.onnx and VOICE.onnx.json.

        Raises ConfigError if piper-tts is not installed, ModelError if the files are not a single-speaker voice.
        """
        module = _import_piper()
        file = model_file(directory)
        config_file = file.with_name(file.name + ".json")
        try:
            config = module.PiperConfig.from_dict(json.loads(config_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError) as error:
            remedy = "Run `rejoinder models pull`."
            raise ModelError("is no Piper voice.", remedy, file=str(config_file), found=repr(error)) from error
        # piper's own loader gives onnxruntime no thread count, which then takes every core.
        self._voice = module.PiperVoice(session=open_session(file, threads, _INPUTS), config=config)
        self._synthesis = module.SynthesisConfig
        self._chunk_bytes = WIRE_RATE * chunk_ms // 1000 * SAMPLE_BYTES
        self.name = f"piper {file.stem} (onnxruntime)"

    def warm_up(self) -> None:
        for _ in self.synthesize("Hello, how can I help you?"):
            pass

    def synthesize(self, text: str, speed: float = 1.0) -> Generator[bytes]:
        """Speak `text`: chunks of 24 kHz PCM, all of `chunk_ms` but the last; none if nothing is speakable.

        Closing the iterator stops the work: between chunks at once, inside a sentence when it is done.
        Raises CallerError for a `speed` or a length out of range.
        """
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise CallerError(f"speed {speed:g} is out of range.", f"Use {MIN_SPEED} to {MAX_SPEED}.", param="speed")
        if len(text) > MAX_CHARACTERS:
            message = f"text of {len(text)} characters exceeds {MAX_CHARACTERS}."
            raise CallerError(message, "Send one sentence at a time.", code="text_too_long")
        return self._chunks(text, speed)

    def _chunks(self, text: str, speed: float) -> Generator[bytes]:
        pending = b""
        for pcm in self._sentences(text, speed):
            pending += pcm
            while len(pending) >= self._chunk_bytes:
                yield pending[: self._chunk_bytes]
                pending = pending[self._chunk_bytes :]
        if pending:
            yield pending

    def _sentences(self, text: str, speed: float) -> Iterator[bytes]:
        """PCM at the wire's rate, a sentence at a time, without the silence before the first sound."""
        rate = self._voice.config.sample_rate
        resampler = soxr.ResampleStream(rate, WIRE_RATE, 1, dtype="float32")
        started = False
        options = self._synthesis(length_scale=self._voice.config.length_scale / speed)
        for sentence in self._voice.synthesize(text, options):
            audio: Samples = sentence.audio_float_array
            if not started:
                audio = _without_lead(audio, rate)
                started = audio.size > 0
            yield float_to_pcm16(resampler.resample_chunk(audio))
        yield float_to_pcm16(resampler.resample_chunk(np.zeros(0, np.float32), last=True))


def _without_lead(audio: Samples, rate: int) -> Samples:
    onset = first_audible(audio, rate)
    return audio[:0] if onset is None else audio[max(0, onset - rate * LEAD_MS // 1000) :]


def _import_piper() -> Any:
    try:
        import piper
    except ImportError as error:
        remedy = "Run `pip install rejoinder[piper]` (piper-tts is GPL-3.0)."
        raise ConfigError("the piper engine needs the package piper-tts.", remedy, field="tts.engine") from error
    return piper
