"""The audio formats of the wire, each way apart: 24 kHz PCM, and G.711 at 8 kHz.

Inside, callers are heard at 16 kHz and the voice speaks at 24; every length and position is counted there, so nothing
but the two converters below depends on the format.
"""

from __future__ import annotations

from enum import Enum

from rejoinder.core.audio.g711 import A_LAW, MU_LAW, Law
from rejoinder.core.audio.pcm import SAMPLE_BYTES, TELEPHONE_RATE, WIRE_RATE
from rejoinder.core.audio.resample import TELEPHONE_TO_STT, WIRE_TO_STT, WIRE_TO_TELEPHONE, Resampler
from rejoinder.core.wire.fields import Fields, Json


class AudioFormat(Enum):
    """OpenAI Realtime's format types."""

    PCM = "audio/pcm"
    PCMU = "audio/pcmu"
    PCMA = "audio/pcma"

    @property
    def law(self) -> Law | None:
        """The G.711 law; None of PCM."""
        return {AudioFormat.PCMU: MU_LAW, AudioFormat.PCMA: A_LAW}.get(self)

    @property
    def rate(self) -> int:
        """Samples a second."""
        return WIRE_RATE if self.law is None else TELEPHONE_RATE

    @property
    def sample_bytes(self) -> int:
        return SAMPLE_BYTES if self.law is None else 1

    def wire(self) -> Json:
        """As `format` in the session and in responses: only PCM has a rate."""
        return {"type": self.value} | ({"rate": WIRE_RATE} if self.law is None else {})


def parse_format(patch: Fields, current: AudioFormat) -> AudioFormat:
    """The `format` beside a direction's other fields; absent or null keeps `current`."""
    if patch.raw("format") is None:
        return current
    wanted = patch.child("format")
    found = AudioFormat(wanted.choice("type", [known.value for known in AudioFormat]))
    wanted.number("rate", found.rate, found.rate, found.rate)
    return found


class WireDecoder:
    """One caller's audio, from a wire format to the 16 kHz PCM of the session; `sample_bytes` is the format's."""

    def __init__(self, wire: AudioFormat = AudioFormat.PCM) -> None:
        self.format = wire
        self.sample_bytes = wire.sample_bytes
        self._law = wire.law
        self._to_stt = Resampler(WIRE_TO_STT if self._law is None else TELEPHONE_TO_STT)

    def __call__(self, audio: bytes) -> bytes:
        """A message of whole samples."""
        return self._to_stt(self._law.decode(audio) if self._law else audio)


class WireEncoder:
    """One response's audio, from the voice's 24 kHz PCM to a wire format."""

    def __init__(self, wire: AudioFormat = AudioFormat.PCM) -> None:
        self.format = wire
        self._law = wire.law
        self._to_telephone = Resampler(WIRE_TO_TELEPHONE)

    def __call__(self, pcm: bytes) -> bytes:
        """May be empty: of G.711, up to two samples of 24 kHz wait for the next call."""
        return self._law.encode(self._to_telephone(pcm)) if self._law else pcm
