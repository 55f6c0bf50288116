"""Pytest hook of the stock clients' tests, which need what `scripts/test-clients` installs."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of stock clients if these are not installed."""
    if list((ROOT / ".venv-clients").glob(".installed-*")):
        return
    deselected = [item for item in items if item.get_closest_marker("clients")]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]
