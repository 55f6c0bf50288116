"""The audio formats of the wire: 24 kHz PCM and 8 kHz G.711, chosen separately for each direction.

Inside the system, the caller's audio has a rate of 16 kHz and the reply's audio a rate of 24 kHz. Lengths and positions
are counted at these rates. Only `WireDecoder` and `WireEncoder` depend on the wire format.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from rejoinder.core.audio.g711 import A_LAW, MU_LAW, Law
from rejoinder.core.audio.pcm import SAMPLE_BYTES, TELEPHONE_RATE, WIRE_RATE
from rejoinder.core.audio.resample import TELEPHONE_TO_STT, WIRE_TO_STT, WIRE_TO_TELEPHONE, Resampler
from rejoinder.core.wire.fields import Fields, Json

MISALIGNED_ROUGHNESS = 2_000.0
"""Mean difference between neighbouring samples above which PCM may be read one byte late. Speech at 24 kHz has less,
unless it is near full scale; misread bytes have about 20,000."""

MISALIGNED_FACTOR = 4.0
"""PCM is taken to be read one byte late if that reading is this much rougher than the other. Of white noise both
readings are equally rough."""


class AudioFormat(Enum):
    """Audio formats of OpenAI Realtime. Values are the `type` on the wire.

    PCM: 16-bit at 24 kHz. PCMU and PCMA: G.711 mu-law and A-law at 8 kHz.
    """

    PCM = "audio/pcm"
    PCMU = "audio/pcmu"
    PCMA = "audio/pcma"

    @property
    def law(self) -> Law | None:
        """G.711 codec of the format; None for PCM."""
        return {AudioFormat.PCMU: MU_LAW, AudioFormat.PCMA: A_LAW}.get(self)

    @property
    def rate(self) -> int:
        """Samples per second: 24000 for PCM, 8000 for G.711."""
        return WIRE_RATE if self.law is None else TELEPHONE_RATE

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample: 2 for PCM, 1 for G.711."""
        return SAMPLE_BYTES if self.law is None else 1

    def wire(self) -> Json:
        """Return the format as the JSON object `format` of sessions and responses. Only PCM has a `rate` there."""
        return {"type": self.value} | ({"rate": WIRE_RATE} if self.law is None else {})


def parse_format(patch: Fields, current: AudioFormat) -> AudioFormat:
    """Return the audio format that a client sent, or `current` if it sent none.

    Args:
        patch: The client's `audio.input` or `audio.output` object.
        current: The format until now.

    Raises:
        CallerError: The format or its rate is not supported.
    """
    if patch.raw("format") is None:
        return current
    fields = patch.child("format")
    chosen = AudioFormat(fields.choice("type", [known.value for known in AudioFormat]))
    fields.number("rate", chosen.rate, chosen.rate, chosen.rate)
    return chosen


class WireDecoder:
    """Converter of one caller's audio stream from a wire format to 16 kHz PCM, message by message.

    Messages may have any number of bytes. If a message ends within a sample, the next message completes the sample.

    Attributes:
        format: The wire format.
    """

    def __init__(self, wire: AudioFormat = AudioFormat.PCM) -> None:
        self.format = wire
        self._law = wire.law
        self._to_stt = Resampler(WIRE_TO_STT if self._law is None else TELEPHONE_TO_STT)
        self._half_sample = b""

    def __call__(self, audio: bytes) -> bytes:
        """Return the audio of one message as 16-bit PCM at 16 kHz."""
        if self._law:
            return self._to_stt(self._law.decode(audio))
        if self._half_sample and not _begins_sample(self._half_sample, audio):
            audio = self._half_sample + audio
        whole = len(audio) - len(audio) % SAMPLE_BYTES
        self._half_sample = audio[whole:]
        return self._to_stt(audio[:whole])

    def end_stream(self) -> None:
        """Drop the first byte of an incomplete sample, because the client has cleared or committed its audio.

        The next message then begins with a whole sample.
        """
        self._half_sample = b""


def _begins_sample(half: bytes, audio: bytes) -> bool:
    """Return True if `audio` clearly begins with a whole sample, although the message before it ended with `half`.

    A client may lose the last byte of a recording and continue with whole samples. Completing the old sample with the
    new bytes would then shift all later samples by one byte and turn them into noise. Shifted samples differ far more
    from their neighbours than correct ones (`_roughness`).

    Args:
        half: First byte of the incomplete sample of the message before.
        audio: The new message.
    """
    late, plain = _roughness(half + audio), _roughness(audio)
    return late > MISALIGNED_ROUGHNESS and late > MISALIGNED_FACTOR * plain


def _roughness(pcm: bytes) -> float:
    """Return the mean absolute difference between neighbouring samples of 16-bit PCM; 0 for less than two samples."""
    samples = np.frombuffer(pcm[: len(pcm) - len(pcm) % SAMPLE_BYTES], "<i2").astype(np.float32)
    return float(np.abs(np.diff(samples)).mean()) if samples.size > 1 else 0.0


class WireEncoder:
    """Converter of one response's audio from 24 kHz PCM to a wire format, chunk by chunk."""

    def __init__(self, wire: AudioFormat = AudioFormat.PCM) -> None:
        self.format = wire
        self._law = wire.law
        self._to_telephone = Resampler(WIRE_TO_TELEPHONE)

    def __call__(self, pcm: bytes) -> bytes:
        """Return one chunk of 24 kHz 16-bit PCM in the wire format.

        For G.711, three samples become one. Up to two samples at the end of a chunk are converted with the next chunk.
        """
        return self._law.encode(self._to_telephone(pcm)) if self._law else pcm
