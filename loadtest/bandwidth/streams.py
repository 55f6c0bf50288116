"""Which media streams are measured: Opus at the guide's rates, with and without DTX, and G.711, all as SRTP."""

from __future__ import annotations

from loadtest.bandwidth import opus
from loadtest.bandwidth.formula import Srtp
from loadtest.bandwidth.media import MediaStream
from loadtest.bandwidth.opus import OpusSettings
from loadtest.bandwidth.speech import READING_RATE, Pcm, agent_side, caller_side, resample
from rejoinder.core.audio.g711 import MU_LAW

KBPS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
STEREO_KBPS = (64, 96, 128)
# Frames of 60 ms: a third of the headers, for 40 ms of delay.
LONG_FRAME_KBPS = (8, 12, 16, 24, 32, 48)
G711_FRAME_MS = 20
_G711_RATE = 8_000


def streams(seconds: float) -> list[MediaStream]:
    """All of them, encoded; each side speaks half of the time."""
    up, down = caller_side(seconds), agent_side(seconds)
    settings = [OpusSettings(rate, dtx=dtx) for rate in KBPS for dtx in (False, True)]
    settings += [OpusSettings(rate, channels=2) for rate in STEREO_KBPS]
    settings += [OpusSettings(rate, frame_ms=60, dtx=dtx) for rate in LONG_FRAME_KBPS for dtx in (False, True)]
    settings += [OpusSettings(32, frame_ms=40), OpusSettings(24, constant=True), OpusSettings(32, constant=True)]
    found = [_opus(each, up, down) for each in settings]
    for rate in (24, 32):
        found.append(_opus(OpusSettings(rate), up, down, Srtp.AEAD_AES_128_GCM))
        found.append(_opus(OpusSettings(rate), up, down, extensions=True))
    return [*found, MediaStream("G.711 mu-law, 20 ms", G711_FRAME_MS, _g711(up), _g711(down))]


def _opus(
    settings: OpusSettings, up: Pcm, down: Pcm, srtp: Srtp = Srtp.HMAC_SHA1_80, *, extensions: bool = False
) -> MediaStream:
    name = settings.name + (", AES-GCM" if srtp is Srtp.AEAD_AES_128_GCM else "") + (", ext." if extensions else "")
    coded = (opus.encode(up, settings), opus.encode(down, settings))
    return MediaStream(name, settings.frame_ms, *coded, srtp, extensions)


def _g711(pcm: Pcm) -> list[bytes]:
    codes = MU_LAW.encode(resample(pcm, READING_RATE, _G711_RATE).astype("<i2").tobytes())
    size = _G711_RATE * G711_FRAME_MS // 1000
    return [codes[start : start + size] for start in range(0, len(codes) - size + 1, size)]
