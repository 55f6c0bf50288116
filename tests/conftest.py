"""What tests of several folders share."""

from __future__ import annotations

import pytest

from rejoinder.core.config import ModelStoreSettings
from rejoinder.store.model_store import ModelStore, open_store


@pytest.fixture(scope="session")
def store() -> ModelStore:
    """The user's model store, which tests marked `models` need filled."""
    return open_store(ModelStoreSettings())
