"""Synthesized speech for tests that talk to a real system."""

from __future__ import annotations

import numpy as np
import soxr

from benchmarks.studies.silences import edges
from deployments.engines.piper import PiperVoice
from deployments.engines.speech_in.silero import Silero
from rejoinder.core.audio.pcm import STT_RATE, WIRE_RATE
from rejoinder.core.settings.settings import SpeechSettings
from rejoinder.core.turns.speech_detector import SoftEnd
from rejoinder.store import ModelStore

TRIES = 20


def speak(store: ModelStore, text: str) -> bytes:
    """Return `text` as speech of the bundled voice (piper), 24 kHz 16-bit PCM."""
    return b"".join(PiperVoice(store.path("piper-en-us-joe-medium")).synthesize(text))


def speak_without_pause(store: ModelStore, text: str) -> bytes:
    """Return `text` as speech of the bundled voice without a pause inside, 24 kHz 16-bit PCM.

    The voice speaks differently each time, and in four of ten takes it pauses before the last word. The system would
    begin to work at that pause, and a test that disturbs the first request of a turn would disturb a request for only
    a part of the sentence. The speech is therefore synthesized until voice activity detection finds no pause in it.
    Raise AssertionError after TRIES attempts.
    """
    voice = PiperVoice(store.path("piper-en-us-joe-medium"))
    silero = Silero(store.path("silero-vad"))
    for _ in range(TRIES):
        pcm = b"".join(voice.synthesize(text))
        if _soft_ends(silero, pcm) == 1:
            return pcm
    raise AssertionError(f"the voice paused {TRIES} times in a row")


def _soft_ends(silero: Silero, pcm: bytes) -> int:
    samples = soxr.resample(np.frombuffer(pcm, "<i2"), WIRE_RATE, STT_RATE)
    found = edges(silero, SpeechSettings(), np.concatenate([samples, np.zeros(STT_RATE // 2, np.int16)]))
    return sum(isinstance(event, SoftEnd) for event in found)
