"""Piper: text to speech on the CPU, heard before its sentence is finished.

A VITS voice is two networks in one file: one makes the latent frames of a whole sentence, the other (a HiFi-GAN) turns
frames into samples, and each sample depends on OVERLAP frames to either side and no more. So the file is cut in two,
and the samples are made a few frames at a time: the same samples, and the first of them in half the time.

piper-tts is GPL-3.0 and therefore an optional extra, imported only when a voice is opened.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx.utils
import soxr

from deployments.engines.onnx import model_file, open_part, open_session, read_model
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE, Samples, first_audible, float_to_pcm16
from rejoinder.core.errors import CallerError, ConfigError, ModelError

LEAD_MS = 10
"""Silence kept before the first sound: enough for the attack of a consonant; the rest is latency."""

MIN_SPEED, MAX_SPEED = 0.25, 1.5
"""The range of OpenAI Realtime's `speed`."""

MAX_CHARACTERS = 2000
"""Two minutes of speech; a sentence is the unit of cancellation, so a text without an end would hold the slot."""

OVERLAP = 12
"""Frames to either side on which a sample depends: conv_pre 3, the first stage's dilated kernels 45/8, the rest 2."""

FIRST_FRAMES, MOST_FRAMES = 18, 192
"""Frames of the first part of a sentence (0.21 s of speech), doubled at each part up to the most."""

PEAK = 0.95
"""Of full scale: what the loudest sentence of the warm-up is brought to."""

_INPUTS = ("input", "input_lengths", "scales")
_DECODER_INPUT = "/dec/conv_pre/Conv"

Feed = dict[str, npt.NDArray[Any]]


class PiperVoice:
    """One voice; safe to call from several threads (phonemization is serialised inside piper)."""

    def __init__(self, directory: Path, threads: int = 2, chunk_ms: int = 200, *, chunked: bool = True) -> None:
        """`directory` holds VOICE.onnx and VOICE.onnx.json; `chunked`: speak before a sentence is finished.

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
        # piper's own loader gives onnxruntime no thread count, which then takes every core; here it only phonemizes.
        self._network: VitsNetwork = ChunkedNetwork(file, threads) if chunked else WholeNetwork(file, threads)
        self._voice = module.PiperVoice(session=None, config=config)
        self._chunk_bytes = WIRE_RATE * chunk_ms // 1000 * SAMPLE_BYTES
        self._gain = 1.0
        self.name = f"piper {file.stem} (onnxruntime)"

    def warm_up(self) -> None:
        """Speak a little, and find out how loud this voice is."""
        peaks = [
            float(np.abs(audio).max(initial=0.0))
            for sentence in _WARM_UP
            for audio in self._audio(sentence, self._voice.config.length_scale)
        ]
        self._gain = PEAK / max(peaks)

    def synthesize(self, text: str, speed: float = 1.0) -> Generator[bytes]:
        """Speak `text`: chunks of 24 kHz PCM; none if nothing is speakable. All are of `chunk_ms` but the last, and the
        first if less is there first.

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
        pending, begun = b"", False
        for pcm in self._sentences(text, speed):
            pending += pcm
            if pending and not begun and len(pending) < self._chunk_bytes:
                yield pending
                pending = b""
            begun = begun or bool(pcm)
            while len(pending) >= self._chunk_bytes:
                yield pending[: self._chunk_bytes]
                pending = pending[self._chunk_bytes :]
        if pending:
            yield pending

    def _sentences(self, text: str, speed: float) -> Iterator[bytes]:
        """PCM at the wire's rate, part by part, without the silence before the first sound."""
        rate = self._voice.config.sample_rate
        resampler = soxr.ResampleStream(rate, WIRE_RATE, 1, dtype="float32")
        started = False
        for part in self._audio(text, self._voice.config.length_scale / speed):
            audio: Samples = np.clip(part * self._gain, -1.0, 1.0)
            if not started:
                audio = _without_lead(audio, rate)
                started = audio.size > 0
            yield float_to_pcm16(resampler.resample_chunk(audio))
        yield float_to_pcm16(resampler.resample_chunk(np.zeros(0, np.float32), last=True))

    def _audio(self, text: str, length_scale: float) -> Iterator[Samples]:
        """The voice's own samples, sentence by sentence, each in parts."""
        config = self._voice.config
        scales = np.array([config.noise_scale, length_scale, config.noise_w_scale], np.float32)
        for phonemes in self._voice.phonemize(text):
            if not phonemes:
                continue
            ids = np.array([self._voice.phonemes_to_ids(phonemes)], np.int64)
            yield from self._network.run(
                {"input": ids, "input_lengths": np.array([ids.shape[1]], np.int64), "scales": scales}
            )


class VitsNetwork(Protocol):
    """From phonemes to samples."""

    def run(self, feed: Feed) -> Iterator[Samples]: ...


class WholeNetwork:
    """A sentence's samples in one part."""

    def __init__(self, file: Path, threads: int) -> None:
        self._session: Any = open_session(file, threads, _INPUTS)

    def run(self, feed: Feed) -> Iterator[Samples]:
        yield self._session.run(None, feed)[0].reshape(-1)


class ChunkedNetwork:
    """A sentence's samples in parts, which joined are those of WholeNetwork but for the last bits of their floats."""

    def __init__(self, file: Path, threads: int) -> None:
        """Raises ModelError if the file is no VITS voice with a HiFi-GAN decoder."""
        model = read_model(file, _INPUTS)
        latent = next((node.input[0] for node in model.graph.node if node.name == _DECODER_INPUT), None)
        if latent is None:
            raise ModelError("has no decoder of its own.", "Set tts.chunked to false for this voice.", file=str(file))
        parts = onnx.utils.Extractor(model)
        output = model.graph.output[0].name
        self._latent = latent
        self._frames: Any = open_part(parts.extract_model(list(_INPUTS), [latent]), threads)
        self._samples: Any = open_part(parts.extract_model([latent], [output]), threads)

    def run(self, feed: Feed) -> Iterator[Samples]:
        (frames,) = self._frames.run(None, feed)
        begin, size = 0, FIRST_FRAMES
        while begin < frames.shape[2]:
            end = min(begin + size, frames.shape[2])
            # Frames too few to be a part of their own are decoded with this one.
            end = frames.shape[2] if frames.shape[2] - end < OVERLAP else end
            first = max(0, begin - OVERLAP)
            (samples,) = self._samples.run(None, {self._latent: frames[:, :, first : end + OVERLAP]})
            flat = samples.reshape(-1)
            hop = flat.size // (min(end + OVERLAP, frames.shape[2]) - first)
            yield flat[(begin - first) * hop : (end - first) * hop]
            begin, size = end, min(2 * size, MOST_FRAMES)


_WARM_UP = ("Hello, how can I help you?", "No!", "It is a quarter past nine, and the sun is shining.")


def _without_lead(audio: Samples, rate: int) -> Samples:
    onset = first_audible(audio, rate)
    return audio[:0] if onset is None else audio[max(0, onset - rate * LEAD_MS // 1000) :]


def _import_piper() -> Any:
    try:
        import piper
    except ImportError as error:
        remedy = "Run `pip install -e '.[piper]'` in the checkout (piper-tts is GPL-3.0)."
        raise ConfigError("the piper engine needs the package piper-tts.", remedy, field="tts.engine") from error
    return piper
