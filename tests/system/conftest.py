"""Shared by the tests on a real Ray: clips, and served systems."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from benchmarks.studies.turn_study import edges
from deployments.engines.piper import PiperVoice
from deployments.engines.speech_in.silero import Silero
from rejoinder.core.audio.pcm import STT_RATE, WIRE_RATE
from rejoinder.core.settings.settings import SpeechSettings
from rejoinder.core.turns.speech_detector import SoftEnd
from rejoinder.store import ModelStore

TRIES = 20


@pytest.fixture(scope="session")
def question(store: ModelStore) -> bytes:
    """A short spoken question without a pause: 24 kHz PCM.

    The synthesized voice speaks differently each time, and four times in ten it stops before the last word. Then work
    begins there, and what a test does to the first request of a turn, it does to half a sentence's.
    """
    voice = PiperVoice(store.path("piper-en-us-joe-medium"))
    silero = Silero(store.path("silero-vad"))
    for _ in range(TRIES):
        pcm = b"".join(voice.synthesize("What is the capital of France?"))
        if _soft_ends(silero, pcm) == 1:
            return pcm
    raise AssertionError(f"the voice paused {TRIES} times in a row")


@pytest.fixture(scope="session")
def long_question(store: ModelStore) -> bytes:
    """A question whose answer takes a while to speak."""
    voice = PiperVoice(store.path("piper-en-us-joe-medium"))
    return b"".join(voice.synthesize("Please tell me a long story about a brave little fox."))


def _soft_ends(silero: Silero, pcm: bytes) -> int:
    """How often voice activity hears an end in it."""
    samples = soxr.resample(np.frombuffer(pcm, "<i2"), WIRE_RATE, STT_RATE)
    heard = edges(silero, SpeechSettings(), np.concatenate([samples, np.zeros(STT_RATE // 2, np.int16)]))
    return sum(isinstance(event, SoftEnd) for event in heard)
