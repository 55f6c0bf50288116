"""Fixtures that tests of several folders share."""

from __future__ import annotations

import pytest
from hypothesis import settings

from rejoinder.core.settings.settings import ModelStoreSettings
from rejoinder.store.model_store import ModelStore, open_store

# Properties check values. A busy machine must not make them fail.
settings.register_profile("rejoinder", deadline=None)
settings.load_profile("rejoinder")


@pytest.fixture(scope="session")
def store() -> ModelStore:
    """Return the user's model store. Tests marked `models` need it filled."""
    return open_store(ModelStoreSettings())
