"""Test of `rejoinder launch` from one description to three machines and back to nothing.

The machines are namespaces with an SSH server each. A fourth one is the operator's own, which runs `rejoinder launch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.machines.operator_desk import NODES, Desk, operator_desk

pytestmark = [
    pytest.mark.ray,
    pytest.mark.netns,
    pytest.mark.sshd,
    pytest.mark.models,
    pytest.mark.timeout(420),
]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with operator_desk(tmp_path) as made:
        yield made


def test_three_machines_are_launched_drained_and_stopped(desk: Desk) -> None:
    """One command launches three nodes; `status` shows them, and a load test against an entry loses no call and turn.

    `drain` stops a node and leaves nothing on it, while the others accept calls. `down` leaves no process and no file
    on any machine.
    """
    up = desk.launch("up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert desk.states() == dict.fromkeys(NODES, ("alive", "accepts calls"))
    held = desk.load("cpu-1")
    assert "0 unanswered" in held
    assert "\n3 of 3 calls held, 0 refused, 0 failed, 0 dropped" in held

    drained = desk.launch("drain", "cpu-2", "--within", "60")
    assert drained.returncode == 0, drained.stdout + drained.stderr
    assert desk.processes("cpu-2") == []
    assert desk.files("cpu-2") == []
    states = desk.states()
    assert states["cpu-2"] == ("dead", "no answer")
    assert states["head-1"] == states["cpu-1"] == ("alive", "accepts calls")

    down = desk.launch("down", "--yes")
    assert down.returncode == 0, down.stdout + down.stderr
    for node in NODES:
        assert desk.processes(node) == []
        assert desk.files(node) == []
    assert desk.states() == dict.fromkeys(NODES, ("down", "no answer"))
