"""Tests of a machine without room: the disk or the shared memory is full while calls are in progress.

The system has a disk and a shared memory of its own, in a mount namespace, so that nobody else is disturbed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.system import System, settings
from tests.system.harness.served import serving

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.models,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount"),
]

FULL_S = 12.0
# Script that mounts a disk at /tmp and a shared memory of their own, shows the folder in $0 in it, and executes the
# command in its arguments.
OWN_MEMORY = """
set -e
mount --bind "$0" /mnt
mount -t tmpfs -o size=300M tmpfs /tmp
mount -t tmpfs -o size=400M tmpfs /dev/shm
mkdir -p "$0"
mount --bind /mnt "$0"
exec "$@"
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, question: bytes) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("full")
    command = ("unshare", "--mount", "sh", "-c", OWN_MEMORY, str(folder))
    with serving(folder, settings(hosts=1, replicas=2), within=command) as served:
        yield System(served, question, hosts=1, replicas=2)


def _fill(path: Path) -> None:
    """Write to a file until there is no room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass
    assert shutil.disk_usage(path.parent).free == 0


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
async def test_calls_go_on_without_room(system: System, place: str) -> None:
    """While the disk or the shared memory is full, no call is lost, and new calls are answered."""
    inside = Path(f"/proc/{system.served.process.pid}/root{place}/filler")
    found = await system.observe(lambda: _fill(inside), FULL_S + 3, (FULL_S, inside.unlink))
    print(place, found)
    assert (found.cut, found.unanswered, found.recovery_s) == (0, 0, 0.0)
    assert found.silence_s < 2


async def test_a_replica_that_dies_while_the_disk_is_full_is_replaced(system: System) -> None:
    """If a replica is killed while the disk is full, calls go on with the other one, and it is replaced in the end."""
    inside = Path(f"/proc/{system.served.process.pid}/root/tmp/filler")

    def strike() -> None:
        _fill(inside)
        system.processes("stt")[0].kill()

    found = await system.observe(strike, FULL_S + 3, (FULL_S, inside.unlink))
    print(found)
    assert (found.cut, found.unanswered, found.recovery_s) == (0, 0, 0.0)
    system.await_whole()
