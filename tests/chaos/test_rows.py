"""Tests of the table of faults: during live calls a process is killed or stopped, and callers notice little of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.rows import ROWS, Row
from tests.chaos.system import System, settings
from tests.system.harness.served import serving

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.timeout(300)]

CASES = [pytest.param(row, id=row.name, marks=() if row.cheap else pytest.mark.chaos) for row in ROWS]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, question: bytes) -> Iterator[System]:
    with serving(tmp_path_factory.mktemp("chaos"), settings(hosts=2, replicas=2)) as served:
        yield System(served, question, hosts=2, replicas=2)


@pytest.mark.parametrize("row", CASES)
async def test_callers_notice_no_more_than_the_row_allows(system: System, row: Row) -> None:
    """Live calls are cut, wait and hear no more than the row allows, and new calls are answered in its time."""
    system.await_whole()
    found = await row.run(system)
    print(row.name, found)
    assert row.broken(found) == []
