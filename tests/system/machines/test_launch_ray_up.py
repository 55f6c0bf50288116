"""Test of `rejoinder launch` with Ray's cluster launcher, from one description to three machines and back to nothing.

The machines are namespaces with an SSH server each. A fourth one is the operator's own, which runs `rejoinder launch`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.machines.operator_desk import NODES, TOKEN, Desk, operator_desk

pytestmark = [
    pytest.mark.ray,
    pytest.mark.netns,
    pytest.mark.sshd,
    pytest.mark.models,
    pytest.mark.timeout(420),
]


# Ray's autoscaler starts a machine again that has sent no heartbeat for 30 s, and looks every 5 s.
RESTART_S = 45.0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with operator_desk(tmp_path) as made:
        yield made


def test_ray_up_launches_three_machines_that_are_drained_and_stopped(desk: Desk) -> None:
    """`up --target ray-up` launches three nodes, one by `ray up` and two by the head, and tells nobody the token.

    `drain` stops a node and leaves nothing on it. The head does not start it again, and the others lose no call and
    turn. `down` leaves no process and no file on any machine, the operator's included.
    """
    up = desk.launch("up", "--target", "ray-up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert desk.states() == dict.fromkeys(NODES, ("alive", "accepts calls"))
    for node in NODES:
        assert not any(TOKEN in line for line in desk.processes(node))
        readable = desk.node(node).run(
            "grep", "-rl", "--exclude-dir=.cache", "--exclude-dir=.pyenv", TOKEN, "/root", "/tmp/rejoinder"
        )
        assert readable.stdout.split() == ["/root/rejoinder-launch/secrets.env"]
        modes = desk.node(node).run("stat", "-c", "%a", "/root/rejoinder-launch/secrets.env")
        assert modes.stdout.strip() == "600"

    drained = desk.launch("drain", "cpu-2", "--within", "60")
    assert drained.returncode == 0, drained.stdout + drained.stderr
    since = time.monotonic()
    # The keys of the machines, and a file that onnxruntime writes when any command imports it.
    assert set(desk.files("desk")) <= {".ssh", ".ses"}
    held = desk.load("cpu-1")
    assert "0 unanswered" in held
    assert "\n3 of 3 calls held, 0 refused, 0 failed, 0 dropped" in held
    time.sleep(max(0.0, since + RESTART_S - time.monotonic()))
    assert desk.processes("cpu-2") == []
    assert desk.files("cpu-2") == []
    states = desk.states()
    assert states["cpu-2"] == ("dead", "no answer")
    assert states["head-1"] == states["cpu-1"] == ("alive", "accepts calls")

    before = desk.files("desk")
    down = desk.launch("down", "--yes")
    assert down.returncode == 0, down.stdout + down.stderr
    for node in [*NODES, "desk"]:
        assert desk.processes(node) == []
    for node in NODES:
        assert desk.files(node) == []
    assert desk.files("desk") == before
    assert desk.states() == dict.fromkeys(NODES, ("down", "no answer"))
