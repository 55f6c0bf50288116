"""Fixtures of the system tests: spoken clips."""

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
    """Return a short spoken question without a pause, as 24 kHz PCM.

    The synthesized speech differs each time, and in four of ten cases it pauses before the last word. The stages would
    then start with half a sentence, and a test would disturb the request for that half.
    """
    voice = PiperVoice(store.path("piper-en-us-joe-medium"))
    silero = Silero(store.path("silero-vad"))
    for _ in range(TRIES):
        pcm = b"".join(voice.synthesize("What is the capital of France?"))
        if _soft_ends(silero, pcm) == 1:
            return pcm
    raise AssertionError(f"the synthesized question had a pause {TRIES} times in a row")


@pytest.fixture(scope="session")
def long_question(store: ModelStore) -> bytes:
    """Return a spoken question whose answer takes several seconds to speak, as 24 kHz PCM."""
    voice = PiperVoice(store.path("piper-en-us-joe-medium"))
    return b"".join(voice.synthesize("Please tell me a long story about a brave little fox."))


def _soft_ends(silero: Silero, pcm: bytes) -> int:
    """Return how many tentative ends of speech voice activity detection finds."""
    samples = soxr.resample(np.frombuffer(pcm, "<i2"), WIRE_RATE, STT_RATE)
    found = edges(silero, SpeechSettings(), np.concatenate([samples, np.zeros(STT_RATE // 2, np.int16)]))
    return sum(isinstance(event, SoftEnd) for event in found)
