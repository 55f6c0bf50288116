"""Synthetic voices: flite, espeak-ng and festival of Debian, and the Piper voice of the model store.

Each voice makes the same samples from the same text every time. Piper does so because its random noise is switched off.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from rejoinder.core.audio.pcm import STT_RATE, float_to_pcm16
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import ModelStoreSettings, TtsSettings
from rejoinder.store import open_store

Pcm = npt.NDArray[np.int16]

# Replacements for sounds that the synthesizers would spell letter by letter ("em em aitch em").
_SAID_AS = {"mm-hmm": "umhum", "hmm": "hum"}

_FESTIVAL = Path("/usr/share/festival/voices")
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Voice:
    """A synthetic voice.

    Attributes:
        name: Name in the corpus.
        program: "flite", "espeak-ng", "festival" or "piper".
        code: The program's name of the voice.
        package: What to install for it: Debian packages, or the extra of this project.
        held_out: True if the voice speaks held-out events only, so that nothing can be tuned on it.
    """

    name: str
    program: str
    code: str
    package: str
    held_out: bool = False


VOICES = (
    Voice("piper-joe", "piper", "", "rejoinder[piper]"),
    Voice("flite-slt", "flite", "slt", "flite"),
    Voice("flite-awb", "flite", "awb", "flite"),
    Voice("flite-kal16", "flite", "kal16", "flite"),
    Voice("flite-rms", "flite", "rms", "flite", held_out=True),
    Voice("espeak-us", "espeak-ng", "en-us", "espeak-ng"),
    Voice("espeak-gb-f3", "espeak-ng", "en-gb+f3", "espeak-ng"),
    Voice("espeak-sco-f2", "espeak-ng", "en-gb-scotland+f2", "espeak-ng", held_out=True),
    Voice("festival-slt", "festival", "cmu_us_slt_arctic_hts", "festival festvox-us-slt-hts"),
    Voice("festival-ked", "festival", "ked_diphone", "festival festvox-kdlpc16k", held_out=True),
)
"""Every voice. The held-out voices have other speakers, or other settings of the synthesizer, than the others."""

BY_NAME = {voice.name: voice for voice in VOICES}


def missing_voices() -> list[Voice]:
    """Return the voices whose program or data is not installed on this machine."""
    return [voice for voice in VOICES if not _installed(voice)]


def speak(name: str, text: str) -> Pcm:
    """Return `text`, spoken by the voice `name`, as 16 kHz samples.

    Raises:
        ConfigError: The voice is not installed, or its program failed.
    """
    voice = BY_NAME[name]
    if not _installed(voice):
        raise ConfigError(f"the voice {name} is not installed.", f"Install {voice.package}.", field="voice")
    return _SPEAKERS[voice.program](voice, pronounceable(text))


def pronounceable(text: str) -> str:
    """Return the text with sounds that are not words ("mm-hmm") spelled so that every synthesizer says them."""
    return re.sub(r"[\w'-]+", lambda found: _SAID_AS.get(found[0].lower(), found[0]), text)


def _installed(voice: Voice) -> bool:
    if voice.program == "piper":
        try:
            import piper  # noqa: F401  # only whether it is there
        except ImportError:
            return False
        return True
    if shutil.which(voice.program) is None:
        return False
    return voice.program != "festival" or any(_FESTIVAL.glob(f"*/{voice.code}"))


def _flite(voice: Voice, text: str) -> Pcm:
    with tempfile.TemporaryDirectory(prefix="rejoinder-voice-") as folder:
        file = Path(folder) / "speech.wav"
        _run(["flite", "-voice", voice.code, "-t", text, "-o", str(file)])
        return _samples(file.read_bytes())


def _espeak(voice: Voice, text: str) -> Pcm:
    return _samples(_run(["espeak-ng", "-v", voice.code, "-s", "160", "--stdout", text]))


def _festival(voice: Voice, text: str) -> Pcm:
    with tempfile.TemporaryDirectory(prefix="rejoinder-voice-") as folder:
        file = Path(folder) / "speech.wav"
        quoted = text.replace("\\", "").replace('"', "")
        script = (
            f'(begin (voice_{voice.code}) (set! spoken (utt.synth (Utterance Text "{quoted}")))'
            f' (utt.save.wave spoken "{file}" \'riff))'
        )
        _run(["festival", "-b", script])
        return _samples(file.read_bytes())


def _piper(voice: Voice, text: str) -> Pcm:
    loaded, config = _piper_voice()
    parts = [chunk.audio_float_array for chunk in loaded.synthesize(text, config)]
    audio = soxr.resample(np.concatenate(parts), loaded.config.sample_rate, STT_RATE)
    return np.frombuffer(float_to_pcm16(audio), np.int16)


@cache
def _piper_voice() -> tuple[Any, Any]:
    import piper

    (model,) = open_store(ModelStoreSettings()).path(TtsSettings().model).glob("*.onnx")
    return piper.PiperVoice.load(model), piper.SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0)


_SPEAKERS: dict[str, Callable[[Voice, str], Pcm]] = {
    "flite": _flite,
    "espeak-ng": _espeak,
    "festival": _festival,
    "piper": _piper,
}


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{command[0]} failed: {error}.", "Run the command by hand.", field="voice") from error


def _samples(wav: bytes) -> Pcm:
    """Return the samples of a mono 16-bit WAV file at 16 kHz. A header that announces too many bytes is accepted."""
    with wave.open(io.BytesIO(wav)) as file:
        rate = file.getframerate()
        raw = file.readframes(len(wav))
    audio = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2").astype(np.float32) / 32768
    return np.frombuffer(float_to_pcm16(soxr.resample(audio, rate, STT_RATE)), np.int16)
