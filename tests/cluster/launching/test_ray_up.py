"""Tests of `rejoinder launch` with Ray's cluster launcher, with stand-ins for SSH and for the program `ray`."""

from __future__ import annotations

import getpass
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.command_runner import SSHCommandRunner
from ray.autoscaler._private.local.node_provider import LocalNodeProvider
from ray.autoscaler._private.util import prepare_config

from cluster.description.launch_description import Launch
from cluster.nodes import NodeState
from cluster.operating import autoscaler_workers, machine_cluster, ray_up
from cluster.operating.autoscaler_workers import change_workers, with_workers
from cluster.operating.machine_cluster import MachineCluster
from cluster.operating.machines import LaunchedMachines
from cluster.operating.ray_up import RayUpStarter, connection_folder
from cluster.operating.shown_command import run_shown
from cluster.rendering.node_plan import plan_nodes
from cluster.rendering.ray_up import cluster_document
from rejoinder.core.errors import BackendError, ConfigError
from tests.cluster.launching.fake_machines import HEAD, ONE, TWO, FakeMachines, described, node

TOKEN = "it's secret"


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return described(tmp_path)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MachineCluster, "_entry", lambda self, plan: "accepts calls")
    for module in (machine_cluster, ray_up):
        monkeypatch.setattr(module, "POLL_S", 0.0)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that makes shell lines the program `ray`. They can write to the folder `$out` that it returns.

    After that folder's file `up` exists, the stand-in has started the head.
    """
    out = tmp_path / "out"
    out.mkdir()

    def make(lines: str) -> Path:
        path = tmp_path / "ray"
        path.write_text(f"#!/bin/sh\nout={out}\n{lines}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setattr(ray_up, "RAY", path)
        return out

    return make


RECORDING = """
for last in "$@"; do :; done
echo "$@" > "$out/words"
env > "$out/environment"
cp -rp "$(dirname "$last")" "$out/folder"
stat -c %a "$(dirname "$last")" > "$out/mode"
echo "the head starts"
echo "Useful commands for your local machine:"
echo "ray down x.yaml"
"""


def test_ray_up_starts_the_head_and_the_head_starts_the_others(
    launch: Launch, program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` runs `ray up` with the rendered files, waits until the other nodes are alive, and deploys the application.

    The output of `ray up` is shown without the commands for a file that is deleted.
    """
    out = program(RECORDING)
    machines, said = FakeMachines(), list[str]()
    seen = iter([[], [node(1, HEAD)], [node(1, HEAD), node(2, ONE)], [node(1, HEAD), node(2, ONE), node(3, TWO)]])
    answer = FakeMachines.run

    def run(self: FakeMachines, address: str, script: str, timeout_s: float = 0) -> str:
        if "cluster.nodes" in script:
            self.nodes = next(seen)
        return answer(self, address, script, timeout_s)

    monkeypatch.setattr(FakeMachines, "run", run)
    MachineCluster(launch, machines, said.append).up("ray-up")
    words = (out / "words").read_text(encoding="utf-8").split()
    assert words[:3] == ["up", "--yes", "--no-config-cache"]
    assert machines.did == [f"serve deploy {HEAD}"]
    assert "  the head starts" in said
    assert said.index(f"cpu-1: Ray runs on {ONE}") < said.index(f"cpu-2: Ray runs on {TWO}")
    assert not any("ray down" in line for line in said)
    assert not Path(words[-1]).parent.exists()


def test_secrets_travel_in_a_private_file(
    launch: Launch, program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secret values are in no command line and not in the environment of `ray up`.

    They are in one file that only its owner can read, in a folder that only its owner can enter, and the shell reads
    the same value from it.
    """
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    out = program(RECORDING)
    machines = FakeMachines(nodes=[node(2, ONE), node(3, TWO)])
    RayUpStarter(LaunchedMachines(launch, machines, secrets={"RAY_AUTH_TOKEN": TOKEN})).start(set())
    assert (out / "mode").read_text(encoding="utf-8").strip() == "700"
    secrets = out / "folder" / "launch" / "secrets.env"
    texts = {path: path.read_text(encoding="utf-8") for path in out.rglob("*") if path.is_file()}
    assert [path for path, text in texts.items() if "s secret" in text] == [secrets]
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    read = subprocess.run(["sh", "-c", f'. {secrets}; printf %s "$RAY_AUTH_TOKEN"'], capture_output=True, text=True)
    assert read.stdout == TOKEN
    assert not any("s secret" in script for _, script in machines.scripts)


def test_a_running_cluster_gets_its_missing_machines_back(launch: Launch, program: Callable[[str], Path]) -> None:
    """`up` on a running cluster never runs `ray up`, which would restart its head.

    It writes the head's files and tells the head's autoscaler of all machines, so that a drained one starts again.
    """
    out = program(RECORDING)
    machines = FakeMachines([node(1, HEAD), node(2, ONE)], ray_up=True, joins=[node(4, TWO)])
    MachineCluster(launch, machines).up("ray-up")
    assert not (out / "words").exists()
    assert machines.did[0].startswith(f"write {HEAD} cpu-1/ray.env")
    assert machines.did[1:] == [f"autoscaler {HEAD}", f"serve deploy {HEAD}"]
    (told,) = [script for _, script in machines.scripts if "_workers" in script]
    assert f'autoscaler_workers "$HOME/ray_bootstrap_config.yaml" add {ONE} {TWO}' in told
    assert 'TMPDIR="/var/lib/rejoinder/tmp"' in told


@pytest.mark.parametrize(("ray_up_started", "target"), [(True, "bare"), (False, "ray-up")])
def test_a_cluster_keeps_its_launcher(launch: Launch, ray_up_started: bool, target: Any) -> None:
    """`up` refuses a target other than the one with which the running cluster was launched, and changes nothing."""
    machines = FakeMachines([node(1, HEAD)], ray_up=ray_up_started)
    with pytest.raises(ConfigError, match="was launched with --target"):
        MachineCluster(launch, machines).up(target)
    assert machines.did == []


def test_a_machine_that_cannot_be_prepared_is_named_before_ray_up(
    launch: Launch, program: Callable[[str], Path]
) -> None:
    """If a check fails on a machine, `up` raises its error, and does not start anything."""
    out = program(RECORDING)
    with pytest.raises(BackendError, match=TWO):
        MachineCluster(launch, FakeMachines(fails=TWO)).up("ray-up")
    assert not (out / "words").exists()


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("ray", "has no Ray: install it there."),
        ("rsync", "rsync is missing: install the package rsync."),
        ("state", "/s cannot be written: create it for the user ray."),
        ("token", "RAY_AUTH_TOKEN is missing: set it here, or write it to "),
        ("", ""),
    ],
)
def test_the_check_of_a_machine_names_what_is_missing(tmp_path: Path, lacking: str, message: str) -> None:
    """The script that `up` runs on each machine first names the one thing that the machine lacks, in one sentence."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("ray", "rsync"):
        if name != lacking:
            (programs / name).write_text("#!/bin/sh\n", encoding="utf-8")
            (programs / name).chmod(0o755)
    for name in ("mkdir", "rmdir"):
        (programs / name).symlink_to(f"/bin/{name}")
    secrets = tmp_path / "secrets.env"
    secrets.write_text("" if lacking == "token" else "RAY_AUTH_TOKEN=a\n", encoding="utf-8")
    # A folder in a file cannot be made, even by root.
    state = "/etc/hostname/s" if lacking == "state" else "/tmp/rejoinder/s"
    own = {"virtualenv": f"{tmp_path}/venv", "secrets_file": str(secrets), "state": state}
    launch = described(tmp_path, machines=own)
    machines = FakeMachines(nodes=[node(1, HEAD), node(2, ONE), node(3, TWO)])
    RayUpStarter(LaunchedMachines(launch, machines)).start({HEAD})
    script = next(script for address, script in machines.scripts if address == ONE and "rsync" in script)
    shell = ["/bin/sh", "-s"]
    done = subprocess.run(shell, input=script, env={"PATH": str(programs)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip().endswith(message) or message in done.stderr) == (
        int(bool(message)),
        True,
    )
    assert len(done.stderr.splitlines()) == int(bool(message))


def test_a_failed_ray_up_is_one_sentence(launch: Launch, program: Callable[[str], Path]) -> None:
    """If `ray up` fails, the error has its last line and what to do, and the application is not deployed."""
    program('echo "no such key"; exit 1')
    machines = FakeMachines()
    with pytest.raises(BackendError, match="head-1: `ray` failed: no such key") as caught:
        MachineCluster(launch, machines).up("ray-up")
    assert "launch down" in caught.value.remedy
    assert machines.did == []


def test_machines_that_never_join_are_named(
    launch: Launch, program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the head does not start Ray on a machine in time, the error names the node and the log to read."""
    program("exit 0")
    monkeypatch.setattr(ray_up, "JOIN_S", -1.0)
    starter = RayUpStarter(LaunchedMachines(launch, FakeMachines([node(1, HEAD), node(2, ONE)])))
    with pytest.raises(BackendError, match="cpu-2: the head has not started Ray there") as caught:
        starter.start(set())
    assert "monitor.out on 10.0.0.1" in caught.value.remedy


def test_a_drained_machine_is_not_started_again(launch: Launch) -> None:
    """`drain` takes the machine out of the autoscaler's list after Ray has agreed, and before it stops Ray there."""
    machines = FakeMachines([node(1, HEAD), node(2, ONE), node(3, TWO)], ray_up=True)
    MachineCluster(launch, machines).drain("cpu-2", 60)
    assert machines.did == [f"drain {HEAD}", f"autoscaler {HEAD}", f"ray stop {TWO}"]
    told = next(script for _, script in machines.scripts if "_workers" in script)
    assert told.rstrip().endswith(f"remove {TWO}")


def test_the_head_of_ray_up_stops_first(launch: Launch) -> None:
    """`down` stops the head before the others, which its autoscaler would start again.

    On the head it also deletes the SSH key and the configuration that `ray up` has copied there.
    """
    machines = FakeMachines([node(1, HEAD), node(2, ONE), node(3, TWO)], ray_up=True)
    MachineCluster(launch, machines).down()
    assert machines.did[:2] == [f"serve shutdown {HEAD}", f"ray stop {HEAD}"]
    assert sorted(machines.did[2:]) == [f"ray stop {ONE}", f"ray stop {TWO}"]
    stops = {address: script for address, script in machines.scripts if "ray stop" in script}
    assert '"$HOME/ray_bootstrap_key.pem"' in stops[HEAD]
    assert "ray_bootstrap" not in stops[ONE]


# -- What the head's autoscaler keeps running --------------------------------------------------------------------------


@pytest.fixture
def prepared(launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the configuration that `ray up` copies to the head; the provider's files are in the same folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    document = cluster_document(launch.description, plan_nodes(launch.description), tmp_path / "launch")
    path = tmp_path / "ray_bootstrap_config.yaml"
    path.write_text(json.dumps(prepare_config(document)), encoding="utf-8")
    return path


def _started(provider: LocalNodeProvider, count: int) -> set[str]:
    """Let a provider start Ray on up to `count` stopped machines, and return all machines that run then."""
    provider.create_node({}, {"ray-node-type": "worker"}, count)
    return set(provider.non_terminated_nodes({"ray-node-type": "worker"}))


def test_ray_s_provider_does_not_start_a_removed_machine(prepared: Path) -> None:
    """A running provider of Ray does not start a machine that was removed, and starts one that was added again.

    The machines that ran go on running, and the autoscaler is told to keep as many machines as there are.
    """
    provider = LocalNodeProvider(json.loads(prepared.read_text(encoding="utf-8"))["provider"], "voice")
    assert _started(provider, 2) == {ONE, TWO}
    change_workers(prepared, remove=[TWO])
    assert _started(provider, 2) == {ONE}
    assert _bounds(prepared) == ([ONE], 1, 1, 1)
    change_workers(prepared, add=[ONE, TWO])
    assert set(provider.non_terminated_nodes({})) == {ONE}
    assert _started(provider, 2) == {ONE, TWO}
    assert _bounds(prepared) == ([ONE, TWO], 2, 2, 2)


def _bounds(path: Path) -> tuple[list[str], int, int, int]:
    document = json.loads(path.read_text(encoding="utf-8"))
    (kind,) = document["available_node_types"].values()
    return document["provider"]["worker_ips"], document["max_workers"], kind["min_workers"], kind["max_workers"]


def test_the_configuration_is_private_and_never_half_written(prepared: Path) -> None:
    """The changed configuration replaces the old one at once, and only its owner can read it."""
    before = prepared.stat().st_ino
    autoscaler_workers.main([str(prepared), "remove", TWO])
    assert prepared.stat().st_ino != before
    assert stat.S_IMODE(prepared.stat().st_mode) == 0o600
    assert [path.name for path in prepared.parent.glob("ray_bootstrap*")] == [prepared.name]


def test_other_settings_of_the_autoscaler_stay(prepared: Path) -> None:
    """`with_workers` changes nothing but the machines and their number."""
    document = json.loads(prepared.read_text(encoding="utf-8"))
    assert with_workers(with_workers(document, [ONE]), [ONE, TWO]) == document


def test_the_folder_of_connections_is_that_of_ray(prepared: Path) -> None:
    """`connection_folder` returns the folder that Ray's launcher uses for the same cluster and user."""
    provider = LocalNodeProvider(json.loads(prepared.read_text(encoding="utf-8"))["provider"], "voice")
    runner = SSHCommandRunner("", HEAD, provider, {"ssh_user": "ray"}, "voice", subprocess, False)
    assert runner.ssh_control_path == str(connection_folder("voice", getpass.getuser()))


# -- A command whose output is shown -----------------------------------------------------------------------------------


def test_a_command_that_never_ends_is_killed_with_its_children(tmp_path: Path) -> None:
    """After the time limit, the error says so, and the command's children have ended."""
    child = tmp_path / "child"
    words = ["sh", "-c", f"sleep 3600 & echo $! > {child}; echo begun; wait"]
    lines: list[str] = []
    with pytest.raises(BackendError, match=r"`sh` did not end within 3 s: begun"):
        run_shown(words, dict(os.environ), lines.append, timeout_s=3)
    assert lines == ["begun"]
    process = Path("/proc", child.read_text(encoding="utf-8").strip(), "stat")
    assert not process.exists() or process.read_text(encoding="utf-8").split()[2] == "Z"


def test_a_missing_program_is_one_sentence() -> None:
    """A program that does not exist raises BackendError with its path."""
    with pytest.raises(BackendError, match="/no/such/ray is missing"):
        run_shown(["/no/such/ray"], {}, print, timeout_s=1)


def test_the_state_of_a_drained_machine_is_shown(launch: Launch) -> None:
    """`status` of a cluster of `ray up` shows the machines as for any other: the newest state of each."""
    machines = FakeMachines([node(1, HEAD), node(2, ONE), node(3, TWO, NodeState.DEAD)], ray_up=True)
    found = MachineCluster(launch, machines).status()
    assert [status.node and status.node.state.value for status in found] == ["alive", "alive", "dead"]
