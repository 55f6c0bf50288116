"""Pytest hooks and fixtures of vLLM's tests, which run only in the environment of `scripts/test-vllm`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec

import pytest

from tests.vllm.system import System, running


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect vLLM's tests if vLLM is not installed. Otherwise run the tests that need the served system last.

    The served system takes longest to start. The tests without it run in the meantime.
    """
    if find_spec("vllm") is not None:
        items.sort(key=lambda item: _needs_vllm(item) and _needs_system(item))
        return
    selected = [item for item in items if not _needs_vllm(item)]
    deselected = [item for item in items if _needs_vllm(item)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = selected


def _needs_vllm(item: pytest.Item) -> bool:
    return item.get_closest_marker("vllm") is not None


def _needs_system(item: pytest.Item) -> bool:
    return "system" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def starting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[System]]:
    """Start the served system in the background, if any test of the pytest session needs it.

    Starting takes most of a minute and one core. The tests that do not need the system run in the meantime.
    """
    needed = any(_needs_vllm(item) and _needs_system(item) for item in request.session.items)
    folder = tmp_path_factory.mktemp("vllm")
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        yield pool.submit(lambda: stack.enter_context(running(folder))) if needed else Future()


@pytest.fixture(scope="session")
def system(starting: Future[System]) -> System:
    """Return the served system with vLLM as its language model, which all tests of the pytest session share."""
    return starting.result()
