"""Text to speech by Piper. A sentence's audio starts before the whole sentence is synthesized.

A VITS voice has two networks in one file. The first makes the latent frames of a whole sentence. The second (a
HiFi-GAN) turns frames into samples, and a sample depends on a few frames on either side. This module splits
the file and decodes a few frames at a time. The samples are the same, and the first of them come in half the time.

piper-tts is GPL-3.0. It is an optional extra and is imported only when a voice is opened.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx.utils
import soxr

from deployments.engines.device import CPU, EngineDevice
from deployments.engines.onnx import model_file, open_part, open_session, read_model
from rejoinder.core.audio.pcm import SAMPLE_BYTES, WIRE_RATE, Samples, first_audible, float_to_pcm16
from rejoinder.core.errors import CallerError, ConfigError, ModelError

LEAD_MS = 10
"""Milliseconds of silence kept before the first sound, enough for the start of a consonant. More would only add
latency.
"""

MIN_SPEED, MAX_SPEED = 0.25, 1.5
"""Range of the speaking rate, as in OpenAI Realtime's `speed`; 1 is the voice's own rate."""

MAX_CHARACTERS = 2000
"""Maximum length of a text, about two minutes of speech. It limits the first network's run on one sentence, which
cannot be cancelled.
"""

OVERLAPS = (12, 16, 24)
"""Possible numbers of frames on either side on which a sample depends. In voices of quality "medium" it is 12: 3
through the layer conv_pre, 45/8 through the dilated kernels of the first upsampling, 2 through the other layers, and a
margin. The dilated kernels of quality "high" are wider.
"""

TOLERANCE = 1e-4
"""Largest difference of a sample, as a share of full scale, that counts as float rounding."""

FIRST_FRAMES, MAX_FRAMES = 18, 192
"""Number of frames in the first part of a sentence (18 frames are 0.21 s of speech), and in the longest part. Each part
has twice as many frames as the part before, up to the maximum.
"""

PEAK = 0.95
"""Peak of the loudest warm-up sentence after the gain is applied, as a share of full scale."""

_INPUTS = ("input", "input_lengths", "scales")
_DECODER_INPUT = "/dec/conv_pre/Conv"

Feed = dict[str, npt.NDArray[Any]]
Latent = npt.NDArray[np.float32]


def feed_of_one_speaker(conditions: Sequence[str]) -> Feed:
    """Return inputs of a decoder that select a voice's first speaker.

    `conditions` has the names of the decoder's inputs other than the frames.
    """
    return {name: np.array([0], np.int64) for name in conditions}


class PiperVoice:
    """One voice. Safe to call from several threads: piper serializes phonemization."""

    def __init__(
        self,
        path: Path,
        threads: int = 2,
        chunk_ms: int = 200,
        *,
        chunked: bool = True,
        speaker: int = 0,
        device: EngineDevice = CPU,
    ) -> None:
        """Load the voice.

        Args:
            path: VOICE.onnx with VOICE.onnx.json beside it, or their folder.
            threads: Threads of one inference.
            chunk_ms: Milliseconds of audio in each PCM chunk that `synthesize` yields.
            chunked: Yield audio before the whole sentence is synthesized.
            speaker: Number of the speaker, from 0, of a voice that has several.
            device: Where to compute.

        Raises:
            ConfigError: piper-tts is not installed, or the voice has no such speaker.
            ModelError: The files are not a Piper voice.
        """
        module = _import_piper()
        file = model_file(path)
        config_file = file.with_name(file.name + ".json")
        try:
            config = module.PiperConfig.from_dict(json.loads(config_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError) as error:
            remedy = "Run `rejoinder models pull`."
            raise ModelError("is not a Piper voice.", remedy, file=str(config_file), found=repr(error)) from error
        if speaker >= max(1, config.num_speakers):
            message = f"the voice {file.stem} has {config.num_speakers} speakers, numbered from 0."
            raise ConfigError(message, "Choose one of them.", field="args.tts.speaker")
        self._speaker = {"sid": np.array([speaker], np.int64)} if config.num_speakers > 1 else {}
        inputs = (*_INPUTS, *self._speaker)
        # Open the network here: piper's own loader sets no thread count, so onnxruntime would use every core. piper is
        # used only to turn text into phonemes.
        self._network: VitsNetwork = (ChunkedNetwork if chunked else WholeNetwork)(file, threads, inputs, device)
        self._voice = module.PiperVoice(session=None, config=config)
        self._chunk_bytes = WIRE_RATE * chunk_ms // 1000 * SAMPLE_BYTES
        self._gain = 1.0
        self.name = f"piper {file.stem} (onnxruntime)"

    def warm_up(self) -> None:
        """Synthesize three sentences, and set the gain of all later audio so that their peak becomes PEAK."""
        peaks = [
            float(np.abs(audio).max(initial=0.0))
            for sentence in _WARM_UP
            for audio in self._audio(sentence, self._voice.config.length_scale)
        ]
        self._gain = PEAK / max(peaks)

    def synthesize(self, text: str, speed: float = 1.0) -> Generator[bytes]:
        """Return an iterator of 24 kHz 16-bit PCM chunks of `text`.

        Chunks have the length `chunk_ms`. The first one is shorter if less audio is ready, and so may be the last one.
        There are none if nothing in `text` can be spoken. Closing the iterator stops the synthesis after the part of
        the sentence that is being computed.

        Raises:
            CallerError: `speed` is out of range, or `text` is too long.
        """
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise CallerError(f"speed {speed:g} is out of range.", f"Use {MIN_SPEED} to {MAX_SPEED}.", param="speed")
        if len(text) > MAX_CHARACTERS:
            message = f"text of {len(text)} characters exceeds {MAX_CHARACTERS}."
            raise CallerError(message, "Send one sentence at a time.", code="text_too_long")
        return self._chunks(text, speed)

    def _chunks(self, text: str, speed: float) -> Generator[bytes]:
        pending, started = b"", False
        for pcm in self._sentences(text, speed):
            pending += pcm
            if pending and not started and len(pending) < self._chunk_bytes:
                yield pending
                pending = b""
            started = started or bool(pcm)
            while len(pending) >= self._chunk_bytes:
                yield pending[: self._chunk_bytes]
                pending = pending[self._chunk_bytes :]
        if pending:
            yield pending

    def _sentences(self, text: str, speed: float) -> Iterator[bytes]:
        """Yield `text` as 24 kHz 16-bit PCM, part by part, with at most LEAD_MS of silence before the first sound.

        `speed` is the speaking rate relative to the voice's own.
        """
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
        """Yield samples at the voice's own sample rate, sentence by sentence, each sentence in parts.

        `length_scale` multiplies the durations of the phonemes: a larger value gives slower speech.
        """
        config = self._voice.config
        scales = np.array([config.noise_scale, length_scale, config.noise_w_scale], np.float32)
        for phonemes in self._voice.phonemize(text):
            if not phonemes:
                continue
            ids = np.array([self._voice.phonemes_to_ids(phonemes)], np.int64)
            lengths = np.array([ids.shape[1]], np.int64)
            feed: Feed = {"input": ids, "input_lengths": lengths, "scales": scales}
            yield from self._network.run(feed | self._speaker)


class VitsNetwork(Protocol):
    """Protocol of a network that turns one sentence's phonemes into samples."""

    def run(self, feed: Feed) -> Iterator[Samples]:
        """Yield the samples of a sentence, at the voice's own sample rate, in one or more parts.

        `feed` has the network's inputs by name: phoneme ids, their number, the scales for noise and length, and the
        speaker of a voice with several.
        """
        ...


class WholeNetwork:
    """Network that yields all samples of a sentence at once."""

    def __init__(self, file: Path, threads: int, inputs: tuple[str, ...] = _INPUTS, device: EngineDevice = CPU) -> None:
        self._session: Any = open_session(file, threads, inputs, device)

    def run(self, feed: Feed) -> Iterator[Samples]:
        """Yield the samples of the sentence in `feed` as one array."""
        yield self._session.run(None, feed)[0].reshape(-1)


class ChunkedNetwork:
    """Network that yields a sentence's samples in parts.

    The joined parts equal the output of WholeNetwork, up to float rounding.
    """

    def __init__(self, file: Path, threads: int, inputs: tuple[str, ...] = _INPUTS, device: EngineDevice = CPU) -> None:
        """Split the file into two networks.

        Args:
            file: The voice's ONNX file.
            threads: Threads of one inference.
            inputs: Names of the network's inputs. A voice with several speakers has one more.
            device: Where to compute.

        Raises:
            ModelError: The file is not a VITS voice with a HiFi-GAN decoder.
        """
        model = read_model(file, inputs)
        decoder_input = next((node for node in model.graph.node if node.name == _DECODER_INPUT), None)
        if decoder_input is None:
            raise ModelError("has no separate decoder.", "Set tts.chunked to false for this voice.", file=str(file))
        latent, weights = decoder_input.input[:2]
        # A convolution's weights have the shape (channels out, channels in, width). Its input channels are the channels
        # of a frame.
        channels = next(entry.dims[1] for entry in model.graph.initializer if entry.name == weights)
        parts = onnx.utils.Extractor(model)
        output = model.graph.output[0].name
        self._latent = latent
        # The decoder of a voice with several speakers needs the speaker too.
        self._conditions = inputs[len(_INPUTS) :]
        self._frames: Any = open_part(parts.extract_model(list(inputs), [latent]), threads, device)
        self._samples: Any = open_part(parts.extract_model([latent, *self._conditions], [output]), threads, device)
        self._overlap = self._needed_overlap(channels, feed_of_one_speaker(self._conditions))

    def run(self, feed: Feed) -> Iterator[Samples]:
        """Compute the latent frames of the sentence in `feed`, then decode them and yield the samples part by part."""
        (frames,) = self._frames.run(None, feed)
        conditions = {name: feed[name] for name in self._conditions}
        begin, size = 0, FIRST_FRAMES
        while begin < frames.shape[2]:
            end = min(begin + size, frames.shape[2])
            # If fewer frames than the overlap would remain after this part, decode them with it.
            end = frames.shape[2] if frames.shape[2] - end < self._overlap else end
            yield self._decoded(frames, begin, end, overlap=self._overlap, conditions=conditions)
            begin, size = end, min(2 * size, MAX_FRAMES)

    def _decoded(self, frames: Latent, begin: int, end: int, *, overlap: int, conditions: Feed) -> Samples:
        """Return the samples of the frames from `begin` to `end`, decoded with `overlap` frames on either side.

        `conditions` has the decoder's other inputs by name (the speaker).
        """
        first, last = max(0, begin - overlap), min(end + overlap, frames.shape[2])
        (samples,) = self._samples.run(None, {self._latent: frames[:, :, first:last], **conditions})
        flat: Samples = samples.reshape(-1)
        hop = flat.size // (last - first)
        return flat[(begin - first) * hop : (end - first) * hop]

    def _needed_overlap(self, channels: int, conditions: Feed) -> int:
        """Return the smallest of OVERLAPS with which a part has the same samples as in a decode of all frames.

        The overlap is found by decoding random frames, because a voice's decoder depends on its quality: "high" reads
        more neighbouring frames than "medium" and "low". If no overlap suffices, the largest is returned.

        Args:
            channels: Number of channels of a frame.
            conditions: The decoder's other inputs by name (the speaker).
        """
        largest = OVERLAPS[-1]
        frames = np.random.default_rng(0).standard_normal((1, channels, 2 * largest + 8)).astype(np.float32)
        begin, end = largest, largest + 8
        exact = self._decoded(frames, begin, end, overlap=largest, conditions=conditions)
        for overlap in OVERLAPS:
            part = self._decoded(frames, begin, end, overlap=overlap, conditions=conditions)
            if np.abs(part - exact).max() < TOLERANCE:
                return overlap
        return largest


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
