"""Fixtures and settings for all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.model_store import ModelStore, open_store

# Property tests have no deadline, because a busy machine is not a failure.
settings.register_profile("rejoinder", deadline=None)
settings.load_profile("rejoinder")


@pytest.fixture(scope="session")
def store() -> ModelStore:
    """Return the user's model store. Tests marked `models` need its models."""
    return open_store(ModelStoreSettings())


@pytest.fixture(scope="session")
def question(store: ModelStore) -> bytes:
    """A short spoken question without a pause: 24 kHz PCM."""
    from tests.system.harness.speech import speak_without_pause  # engines take seconds to import

    return speak_without_pause(store, "What is the capital of France?")


@pytest.fixture(scope="session")
def long_question(store: ModelStore) -> bytes:
    """A spoken question whose answer takes a while to speak: 24 kHz PCM."""
    from tests.system.harness.speech import speak

    return speak(store, "Please tell me a long story about a brave little fox.")
