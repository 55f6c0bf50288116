"""What tests of several folders share."""

from __future__ import annotations

import pytest
from hypothesis import settings

from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.model_store import ModelStore, open_store

# A busy machine is no failure: properties are held against values, never against the clock.
settings.register_profile("rejoinder", deadline=None)
settings.load_profile("rejoinder")


@pytest.fixture(scope="session")
def store() -> ModelStore:
    """The user's model store, which tests marked `models` need filled."""
    return open_store(ModelStoreSettings())
