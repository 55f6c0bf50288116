"""The lane of vLLM: it has an environment of its own (`scripts/test-vllm`), and is left out of any other."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the package its tests are deselected, which pytest counts in its last line."""
    if find_spec("vllm") is not None:
        return
    without = [item for item in items if item.get_closest_marker("vllm") is None]
    left_out = [item for item in items if item.get_closest_marker("vllm") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = without
