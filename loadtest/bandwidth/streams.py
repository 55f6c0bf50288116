"""Media streams to measure, all over SRTP: Opus at the rates of the latency guide, with and without DTX, and G.711."""

from __future__ import annotations

from loadtest.bandwidth import opus
from loadtest.bandwidth.formula import Srtp
from loadtest.bandwidth.media import MediaStream
from loadtest.bandwidth.opus import OpusSettings
from loadtest.bandwidth.speech import SAMPLE_RATE, Pcm, agent_side, caller_side, resample
from rejoinder.core.audio.g711 import MU_LAW

KBPS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
STEREO_KBPS = (64, 96, 128)
# Opus rates in kbps that are also measured with 60 ms frames. These need a third of the headers of 20 ms frames, but
# add 40 ms of delay.
LONG_FRAME_KBPS = (8, 12, 16, 24, 32, 48)
G711_FRAME_MS = 20
_G711_RATE = 8_000


def streams(seconds: float) -> list[MediaStream]:
    """Encode and return every media stream to measure.

    Each direction has `seconds` of audio: the caller speaks in the first half, the agent in the second.

    Raises:
        ConfigError: libopus or the recorded speech is missing.
        BackendError: libopus reported an error.
    """
    up, down = caller_side(seconds), agent_side(seconds)
    settings = [OpusSettings(rate, dtx=dtx) for rate in KBPS for dtx in (False, True)]
    settings += [OpusSettings(rate, channels=2) for rate in STEREO_KBPS]
    settings += [OpusSettings(rate, frame_ms=60, dtx=dtx) for rate in LONG_FRAME_KBPS for dtx in (False, True)]
    settings += [OpusSettings(32, frame_ms=40), OpusSettings(24, constant=True), OpusSettings(32, constant=True)]
    encoded = [_opus(each, up, down) for each in settings]
    for rate in (24, 32):
        encoded.append(_opus(OpusSettings(rate), up, down, Srtp.AEAD_AES_128_GCM))
        encoded.append(_opus(OpusSettings(rate), up, down, extensions=True))
    return [*encoded, MediaStream("G.711 mu-law, 20 ms", G711_FRAME_MS, _g711(up), _g711(down))]


def _opus(
    settings: OpusSettings, up: Pcm, down: Pcm, srtp: Srtp = Srtp.HMAC_SHA1_80, *, extensions: bool = False
) -> MediaStream:
    name = settings.name + (", AES-GCM" if srtp is Srtp.AEAD_AES_128_GCM else "") + (", ext." if extensions else "")
    coded = (opus.encode(up, settings), opus.encode(down, settings))
    return MediaStream(name, settings.frame_ms, *coded, srtp, extensions)


def _g711(pcm: Pcm) -> list[bytes]:
    codes = MU_LAW.encode(resample(pcm, SAMPLE_RATE, _G711_RATE).astype("<i2").tobytes())
    size = _G711_RATE * G711_FRAME_MS // 1000
    return [codes[start : start + size] for start in range(0, len(codes) - size + 1, size)]
