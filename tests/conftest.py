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
