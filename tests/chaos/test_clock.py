"""Tests of a clock that jumps while calls are in progress.

All processes of the system see another time of day (`jumping_clock.c`). The monotonic clock stays as it is, as on a
machine whose clock is set.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.system import System, settings
from tests.system.harness.served import serving

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.models,
    pytest.mark.timeout(300),
    pytest.mark.compiler,
]

SOURCE = Path(__file__).with_name("jumping_clock.c")
WATCH_S = 12.0


class Clock:
    """The time of day of the processes that start with `environment`: the true one plus a number of seconds."""

    def __init__(self, folder: Path) -> None:
        self._file, library = folder / "clock", folder / "clock.so"
        self.set(0)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        self.environment = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_FILE": str(self._file)}

    def set(self, jump_s: int) -> None:
        """Let the processes see the true time plus `jump_s` seconds from now on."""
        # Write the eight bytes in place, because the processes have mapped the file.
        with os.fdopen(os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as file:
            file.write(struct.pack("=q", jump_s))


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def system(clock: Clock, tmp_path_factory: pytest.TempPathFactory, question: bytes) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("jump")
    with serving(folder, settings(hosts=2, replicas=2), environment=clock.environment) as served:
        yield System(served, question, hosts=2, replicas=2)


def test_processes_see_the_jump(clock: Clock) -> None:
    """A process that runs when the clock jumps sees the new time of day, and the monotonic clock without a jump."""
    program = (
        "from time import monotonic, time; day, since = time(), monotonic(); print('ready', flush=True); input();"
        "print(time() - day, monotonic() - since)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], env=clock.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        clock.set(1800)
        day, monotonic = map(float, process.communicate("\n", timeout=30)[0].split())
    clock.set(0)
    assert 1790 < day - monotonic < 1810


@pytest.mark.parametrize("jump_s", [1800, -1800])
async def test_calls_go_on_when_the_clock_jumps(system: System, clock: Clock, jump_s: int) -> None:
    """If the clock jumps by half an hour, no call is cut, every turn is answered, and new calls are answered."""
    system.await_whole()
    found = await system.observe(lambda: clock.set(jump_s), WATCH_S, (WATCH_S, lambda: clock.set(0)))
    print(jump_s, found)
    assert (found.cut, found.unanswered) == (0, 0)
    assert found.recovery_s is not None
    assert found.recovery_s <= 1.0
    assert found.silence_s < 2.0
