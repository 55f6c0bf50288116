"""Decoding of an uploaded recording with FFmpeg's libraries (PyAV), to the audio that the recognizers take.

FFmpeg recognizes a file by its content, not by its name: WAV, FLAC, MP3, Ogg with Opus or Vorbis, WebM, MP4/M4A and
many more.
"""

from __future__ import annotations

from typing import BinaryIO

import av
from av.audio.resampler import AudioResampler
from av.error import FFmpegError

from rejoinder.core.audio.pcm import SAMPLE_BYTES, STT_RATE
from rejoinder.core.errors import CallerError
from rejoinder.core.wire.fields import refuse


def decode_recording(file: BinaryIO, longest_s: float) -> bytes:
    """Return the first audio stream of a file as 16-bit mono PCM at 16 kHz. Blocks: call it in a thread.

    Args:
        file: The file.
        longest_s: Maximum length of the recording in seconds.

    Raises:
        CallerError: It is not a recording, is damaged, has no audio or is too long. The error names the field `file`.
    """
    try:
        # The formats that read further files or addresses (playlists) are left out: the file is a stranger's.
        with av.open(file, mode="r", options={"protocol_whitelist": "file"}) as container:
            if not container.streams.audio:
                raise _unreadable("it contains no audio")
            blocks: list[bytes] = []
            room = round(longest_s * STT_RATE) * SAMPLE_BYTES
            resampler = AudioResampler(format="s16", layout="mono", rate=STT_RATE)
            for frame in (*container.decode(audio=0), None):
                for converted in resampler.resample(frame):
                    block = converted.to_ndarray().tobytes()
                    blocks.append(block)
                    room -= len(block)
                    if room < 0:
                        remedy = f"Send at most {longest_s:g} s at a time."
                        raise refuse("The recording is too long.", "file", code="audio_too_long", remedy=remedy)
    except EOFError:
        raise _unreadable("the file is cut off") from None
    except (FFmpegError, OSError, ValueError, IndexError) as error:
        raise _unreadable(getattr(error, "strerror", None) or str(error)) from None
    return b"".join(blocks)


def _unreadable(reason: str) -> CallerError:
    message = f"The file is not a readable recording ({reason[:200]})."
    return refuse(message, "file", code="invalid_audio", remedy="Send WAV, FLAC, MP3, Ogg, WebM or M4A.")
