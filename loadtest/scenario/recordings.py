"""Decoding of audio recordings of any common format with FFmpeg's libraries (PyAV).

FFmpeg recognizes a file by its content, not by its name: WAV (PCM of any width, float, extensible, A-law, ADPCM),
FLAC, MP3, Ogg with Opus or Vorbis, WebM, MP4/M4A, AIFF and many more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.error import FFmpegError

from rejoinder.core.errors import ConfigError

LONGEST_S = 3600.0
"""Longest recording that is read, in seconds: as long as the longest session. An hour at 48 kHz takes 1.4 GB."""

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
"""Sample rates, in Hz, that are read. A rate outside is that of a damaged header, or contains no intelligible speech.
"""

_CONVERT = "Convert it, for example: ffmpeg -i in -c:a pcm_s16le out.wav"


def read_recording(path: Path) -> tuple[npt.NDArray[np.float64], int]:
    """Return (samples with the channels averaged, sample rate in Hz) of the first audio stream of a file.

    Full scale is 1. Float formats may exceed it.

    Raises:
        ConfigError: The file cannot be read, or is not a recording. `field` names the file.
    """
    try:
        if not path.stat().st_size:
            raise ConfigError("the file is empty.", "Record it again.", field=str(path))
        with path.open("rb") as file, av.open(file, mode="r") as container:
            return _samples(container, str(path))
    except FileNotFoundError:
        raise ConfigError("no such file.", "Give the path of an existing recording.", field=str(path)) from None
    except EOFError:
        raise ConfigError("the file is cut off.", "Record it again.", field=str(path)) from None
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"not a readable recording ({reason}).", _CONVERT, field=str(path)) from None


def _samples(container: InputContainer, name: str) -> tuple[npt.NDArray[np.float64], int]:
    """Return the result of `read_recording`; `name` is the file's, for errors."""
    if not container.streams.audio:
        raise ConfigError("contains no audio.", "Give a recording of speech.", field=name)
    stream = container.streams.audio[0]
    # A stream whose format is unknown has no codec context, and PyAV then has no rate of it either.
    if getattr(stream, "codec_context", None) is None:
        raise ConfigError("is in an unknown audio format.", _CONVERT, field=name)
    rate = stream.rate or 0
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ConfigError(f"has a sample rate of {rate} Hz.", f"Resample it to {LOWEST_RATE} Hz or more.", field=name)
    blocks: list[npt.NDArray[np.float64]] = []
    count = 0
    for block in _mono(container, rate):
        blocks.append(block)
        count += block.size
        if count > LONGEST_S * rate:
            raise ConfigError(f"is longer than {LONGEST_S / 60:g} minutes.", "Cut it into shorter clips.", field=name)
    if not count:
        raise ConfigError("contains no samples.", "Record it again.", field=name)
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise ConfigError("contains samples that are not numbers.", "Export it again.", field=name)
    return samples, rate


def _mono(container: InputContainer, rate: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the first audio stream in blocks: the mean of its channels, at the rate of the file's header."""
    resampler = AudioResampler(format="dblp", rate=rate)
    for frame in container.decode(audio=0):
        yield from (_mean(converted) for converted in resampler.resample(frame))
    yield from (_mean(converted) for converted in resampler.resample(None))


def _mean(frame: AudioFrame) -> npt.NDArray[np.float64]:
    channels = frame.to_ndarray().astype(np.float64, copy=False)
    mean: npt.NDArray[np.float64] = channels.mean(axis=0)
    return mean
