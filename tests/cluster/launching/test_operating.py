"""Tests of the operations on the machines of a launch description, with a stand-in for SSH."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cluster.description.launch_description import Launch
from cluster.nodes import NodeState
from cluster.operating import machine_cluster
from cluster.operating.machine_cluster import MachineCluster
from cluster.operating.remote import SshRemote
from rejoinder.core.errors import BackendError, ConfigError
from tests.cluster.launching.fake_machines import HEAD, ONE, TWO, FakeMachines, described, node


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return described(tmp_path)


@pytest.fixture(autouse=True)
def _every_entry_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MachineCluster, "_entry", lambda self, plan: "accepts calls")
    monkeypatch.setattr(machine_cluster, "POLL_S", 0.0)


def test_the_head_starts_first_and_the_application_last(launch: Launch) -> None:
    """`up` writes each machine its own files, starts the head, then the others, then deploys the application."""
    machines = FakeMachines()
    MachineCluster(launch, machines).up()
    assert sorted(machines.did[:3]) == [
        f"write {HEAD} head-1/ray.env head-1/start-ray.sh ray_config.yaml",
        f"write {ONE} cpu-1/ray.env cpu-1/start-ray.sh",
        f"write {TWO} cpu-2/ray.env cpu-2/start-ray.sh",
    ]
    assert machines.did[3] == f"start-ray.sh {HEAD}"
    assert sorted(machines.did[4:6]) == [f"start-ray.sh {ONE}", f"start-ray.sh {TWO}"]
    assert machines.did[6:] == [f"serve deploy {HEAD}"]


def test_running_nodes_are_not_started_again(launch: Launch) -> None:
    """`up` on a cluster of which one node has died starts only that node."""
    machines = FakeMachines([node(1, HEAD), node(2, ONE), node(3, TWO, NodeState.DEAD)])
    MachineCluster(launch, machines).up()
    assert [step for step in machines.did if step.startswith("start")] == [f"start-ray.sh {TWO}"]


def test_a_machine_that_fails_stops_the_launch(launch: Launch) -> None:
    """If Ray does not start on a machine, `up` raises its error and does not deploy the application."""
    machines = FakeMachines(fails=TWO)
    with pytest.raises(BackendError, match=TWO):
        MachineCluster(launch, machines).up()
    assert f"serve deploy {HEAD}" not in machines.did


def test_entries_that_never_answer_end_the_wait(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an entry accepts no calls in time, `up` raises BackendError with the names of the nodes."""
    monkeypatch.setattr(machine_cluster, "READY_S", -1.0)
    monkeypatch.setattr(
        MachineCluster, "_entry", lambda self, plan: "no host yet" if plan.address == ONE else "accepts calls"
    )
    with pytest.raises(BackendError, match="cpu-1: no calls are accepted"):
        MachineCluster(launch, FakeMachines()).up()


def test_the_entry_of_an_added_node_is_not_awaited(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """`up` on a cluster that serves ends although the entry of a node that it has added does not accept calls."""
    monkeypatch.setattr(machine_cluster, "READY_S", -1.0)
    monkeypatch.setattr(
        MachineCluster, "_entry", lambda self, plan: "no answer" if plan.address == TWO else "accepts calls"
    )
    said: list[str] = []
    MachineCluster(launch, FakeMachines([node(1, HEAD), node(2, ONE)]), said.append).up()
    assert said[-1] == "cpu-2: accepts calls once a replica has started there"


@pytest.mark.parametrize("name", ["cpu-2", TWO])
def test_a_drained_node_is_stopped_when_it_has_left(launch: Launch, name: str) -> None:
    """`drain` asks the head to drain the node, by its name or address, and then stops Ray on its machine only."""
    machines = FakeMachines([node(1, HEAD), node(2, ONE), node(3, TWO)])
    MachineCluster(launch, machines).drain(name, 60)
    assert machines.did == [f"drain {HEAD}", f"ray stop {TWO}"]
    assert [node.address for node in machines.nodes if node.state is NodeState.DEAD] == [TWO]


@pytest.mark.parametrize(("name", "message"), [("cpu-3", "Name one of: cpu-1, cpu-2"), ("head-1", "launch down")])
def test_an_unknown_node_and_the_head_are_not_drained(launch: Launch, name: str, message: str) -> None:
    """`drain` refuses a name that the description does not have, and the head; nothing is stopped."""
    machines = FakeMachines([node(1, HEAD), node(2, ONE)])
    with pytest.raises(ConfigError, match=message):
        MachineCluster(launch, machines).drain(name, 60)
    assert machines.did == []


def test_the_head_stops_last(launch: Launch) -> None:
    """`down` removes the application, stops Ray on the other machines, and then on the head."""
    machines = FakeMachines([node(1, HEAD), node(2, ONE), node(3, TWO)])
    MachineCluster(launch, machines).down()
    assert machines.did[0] == f"serve shutdown {HEAD}"
    assert sorted(machines.did[1:3]) == [f"ray stop {ONE}", f"ray stop {TWO}"]
    assert machines.did[3:] == [f"ray stop {HEAD}"]


def test_the_status_has_the_newest_state_of_each_machine(launch: Launch) -> None:
    """A machine that was started twice has the state of its live node; one that never joined has none."""
    nodes = [node(1, HEAD), node(2, ONE, NodeState.DEAD), node(4, ONE, NodeState.DRAINING)]
    found = MachineCluster(launch, FakeMachines(nodes)).status()
    assert [(status.name, status.node and status.node.node_id) for status in found] == [
        ("head-1", "id-1"),
        ("cpu-1", "id-4"),
        ("cpu-2", None),
    ]


def test_secrets_are_not_in_the_command_line(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SshRemote` passes secret values in the script's text, quoted for the shell, and never as an argument."""
    calls: list[tuple[list[str], bytes]] = []

    def run(words: list[str], *, input: bytes, **_: object) -> subprocess.CompletedProcess[bytes]:
        calls.append((words, input))
        return subprocess.CompletedProcess(words, 0, b"fine\n", b"")

    monkeypatch.setattr(subprocess, "run", run)
    assert SshRemote(launch.description, {"RAY_AUTH_TOKEN": "it's"}).run(ONE, "ray status\n") == "fine\n"
    words, text = calls[0]
    assert not any("it's" in word for word in words)
    assert text == b"export RAY_AUTH_TOKEN='it'\"'\"'s'\nray status\n"
    assert words[-2:] == [f"ray@{ONE}", "sh -s"]


@pytest.mark.parametrize(("status", "remedy"), [(255, "Try `ssh "), (1, "")])
def test_a_failed_command_has_its_last_lines(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, status: int, remedy: str
) -> None:
    """The error of a failed script has the machine and the last lines. If SSH itself failed, it says what to try."""
    errors = b"first\n" * 10 + b"no such key\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], status, b"", errors))
    with pytest.raises(BackendError, match=f"ray@{ONE}: .*no such key") as caught:
        SshRemote(launch.description, {}).run(ONE, "true\n")
    assert caught.value.message.count("first") == 5
    assert caught.value.remedy.startswith(remedy)
    assert bool(caught.value.remedy) == bool(remedy)
