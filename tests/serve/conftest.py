"""Shared by the tests on a real Ray: clips, and served systems."""

from __future__ import annotations

import pytest

from deployments.engines.piper import PiperVoice
from rejoinder.store import ModelStore


@pytest.fixture(scope="session")
def question(store: ModelStore) -> bytes:
    """A short spoken question: 24 kHz PCM."""
    voice = PiperVoice(store.path("piper-en-us-joe-medium"))
    return b"".join(voice.synthesize("What is the capital of France?"))


@pytest.fixture(scope="session")
def long_question(store: ModelStore) -> bytes:
    """A question whose answer takes a while to speak."""
    voice = PiperVoice(store.path("piper-en-us-joe-medium"))
    return b"".join(voice.synthesize("Please tell me a long story about a brave little fox."))
