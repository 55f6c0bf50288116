"""The lane of vLLM: it has an environment of its own (`scripts/test-vllm`), and is left out of any other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec

import pytest

from tests.vllm.system import System, running


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the package its tests are deselected, which pytest counts in its last line; with it, those that speak to
    the served system come last, since that takes longest to start.
    """
    if find_spec("vllm") is not None:
        items.sort(key=lambda item: _is_of_the_lane(item) and _wants_system(item))
        return
    without = [item for item in items if not _is_of_the_lane(item)]
    left_out = [item for item in items if _is_of_the_lane(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = without


def _is_of_the_lane(item: pytest.Item) -> bool:
    return item.get_closest_marker("vllm") is not None


def _wants_system(item: pytest.Item) -> bool:
    return "system" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def starting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[System]]:
    """The served system, begun at the first test of this folder if any of the session wants it.

    It takes most of a minute and one core, for which the tests that come first need not wait.
    """
    wanted = any(_is_of_the_lane(item) and _wants_system(item) for item in request.session.items)
    folder = tmp_path_factory.mktemp("vllm")
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        yield pool.submit(lambda: stack.enter_context(running(folder))) if wanted else Future()


@pytest.fixture(scope="session")
def system(starting: Future[System]) -> System:
    """The one system of all tests that speak to a server."""
    return starting.result()
