"""Fixtures that all tests can use, and the hypothesis profile of the property tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.model_store import ModelStore, open_store

# Property tests (hypothesis) have no time limit per example, because a busy machine must not fail them.
settings.register_profile("rejoinder", deadline=None)
settings.load_profile("rejoinder")


@pytest.fixture(scope="session")
def store() -> ModelStore:
    """Return the user's model store. Tests with the marker `models` need the models in it."""
    return open_store(ModelStoreSettings())


@pytest.fixture(scope="session")
def question(store: ModelStore) -> bytes:
    """Return a short spoken question without a pause, as 24 kHz 16-bit PCM."""
    from tests.system.harness.speech import (
        speak_without_pause,
    )  # imported here, because this imports the engines, which is slow

    return speak_without_pause(store, "What is the capital of France?")


@pytest.fixture(scope="session")
def long_question(store: ModelStore) -> bytes:
    """Return a spoken question that has a long spoken answer, as 24 kHz 16-bit PCM."""
    from tests.system.harness.speech import speak

    return speak(store, "Please tell me a long story about a brave little fox.")
