"""An operator's machine with a launch description of three other machines, which have an SSH server each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from rejoinder.store.model_store import default_directory
from tests.system.harness.growing import emulated
from tests.system.harness.nodes import ROOT
from tests.system.harness.watching import wait_until
from tests.system.machines.machines import Machine, Network, network

SSHD = "/usr/sbin/sshd"
TOKEN = "ab" * 32
"""Token of Ray's processes, which the operator has in an environment variable."""
NODES = {"head-1": "one", "cpu-1": "two", "cpu-2": "three"}
"""Names of the nodes in the description, each with the hostname of its machine."""

TWO: dict[str, Any] = {"min_replicas": 2, "max_replicas": 2}
PROFILE: dict[str, Any] = {
    "http_options": {"host": "0.0.0.0", "port": 8000},
    "applications": [
        {
            "name": "rejoinder",
            "import_path": "deployments.app:build",
            "args": {
                "access": {"insecure": True},
                "host": {"autoscaling": {"min_replicas": 3, "max_replicas": 3}, "resources": {"num_cpus": 0.5}},
                "turn_detector": {"autoscaling": TWO, "resources": {"num_cpus": 0.1}},
                "stt": {**emulated(60, 8), "autoscaling": TWO},
                "llm": {**emulated(120, 8), "autoscaling": TWO},
                "tts": {**emulated(80, 8), "autoscaling": TWO},
            },
        }
    ],
}


@dataclass(frozen=True)
class Desk:
    """The operator's machine, with a launch description of three other machines.

    Attributes:
        machine: The operator's machine.
        net: The network.
        description: File of the launch description.
        at_start: Names of the files in the home folder and in /tmp of every machine before anything was launched.
    """

    machine: Machine
    net: Network
    description: Path
    at_start: frozenset[str]

    def launch(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `rejoinder launch COMMAND DESCRIPTION`, and return the ended process with its output."""
        words = [sys.executable, "-m", "rejoinder.cli", "launch", command, str(self.description), *options]
        return self.machine.run(*words, environment={"RAY_AUTH_TOKEN": TOKEN}, timeout_s=240)

    def states(self) -> dict[str, tuple[str, str]]:
        """Return what `launch status` says of each node: its state, and whether its entry accepts calls."""
        done = self.launch("status", "--json")
        assert done.returncode in (0, 1), done.stderr
        return {node["name"]: (node["state"], node["entry"]) for node in json.loads(done.stdout)}

    def load(self, node: str) -> str:
        """Hold three calls with a node's entry for 12 s, and return what `rejoinder load run` says of them."""
        entry = f"ws://{self.node(node).address}:8000/v1"
        load = ["load", "run", "--url", entry, "--sessions", "3", "--for", "12s", "--tier", "acceptable"]
        load += ["--set", "owned=true", "--set", "behavior.think_s=0.5"]
        words = [sys.executable, "-m", "rejoinder.cli", *load]
        held = self.machine.run(*words, environment={"COLUMNS": "300"}, timeout_s=120)
        # Other tests run at the same time, so latency is not judged here: 1 is FAIL, 4 is UNDECIDED.
        assert held.returncode in (0, 1, 4), held.stdout + held.stderr
        return held.stdout

    def node(self, name: str) -> Machine:
        """Return the machine of a node of the description; of `desk`, the operator's own."""
        return self.machine if name == "desk" else self.net.machines[NODES[name]]

    def processes(self, node: str) -> list[str]:
        """Return the command lines of the processes of a node's machine, without its first one and the SSH server."""
        lines = self.node(node).run("ps", "-eo", "args").stdout.splitlines()[2:]
        return [line for line in lines if "sshd" not in line and not line.startswith("ps ")]

    def files(self, node: str) -> list[str]:
        """Return the files in the home folder and in /tmp of a node's machine that it had not at the start."""
        return sorted(_files(self.node(node)) - self.at_start)


def _files(machine: Machine) -> frozenset[str]:
    listed = machine.run("sh", "-c", "ls -A1 ~ /tmp").stdout.split()
    return frozenset(line for line in listed if not line.endswith(":"))


@contextmanager
def operator_desk(tmp_path: Path) -> Iterator[Desk]:
    """Run the operator's machine and the three others until the block ends.

    Args:
        tmp_path: Folder for the keys, the description and its profile, which all machines see.
    """
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "host"], check=True)
    settings = [
        f"HostKey {tmp_path}/host",
        f"AuthorizedKeysFile {tmp_path}/key.pub",
        "StrictModes no",
        "PermitRootLogin yes",
        "PasswordAuthentication no",
        "UsePAM no",
        "PidFile none",
    ]
    (tmp_path / "sshd_config").write_text("\n".join(settings) + "\n", encoding="ascii")
    with network(visible=[tmp_path]) as net:
        for name in NODES.values():
            machine = net.add(name)
            machine.run("mkdir", "/run/sshd")  # where Debian's server drops its privileges
            server = machine.command(SSHD, "-D", "-f", str(tmp_path / "sshd_config"))
            subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(partial(_listens, machine), 10, f"the SSH server of {name}")
        machine = net.add("desk")
        yield Desk(machine, net, _describe(tmp_path, net), _files(machine))


def _listens(machine: Machine) -> bool:
    return machine.run("sh", "-c", "ss -Hltn 'sport = :22' | grep -q .").returncode == 0


def _describe(folder: Path, net: Network) -> Path:
    """Write a launch description of the machines NODES, and its serve profile. Return the description's path."""
    address = {node: net.machines[name].address for node, name in NODES.items()}
    size: dict[str, Any] = {"cpus": 3, "memory_gb": 4}
    document = {
        "name": "trio",
        "profile": "profile.yaml",
        "groups": [
            {"name": "head", "role": "head", "addresses": [address["head-1"]], "labels": {"group": "cpu"}, **size},
            {"name": "cpu", "addresses": [address["cpu-1"], address["cpu-2"]], **size},
        ],
        "models": {"mount": str(default_directory())},
        "machines": {
            "ssh_user": "root",
            "ssh_private_key": str(folder / "key"),
            "checkout": str(ROOT),
            "virtualenv": sys.prefix,
            "state": "/tmp/rejoinder",
        },
        # Python code of the checkout is not installed in the environment of every developer.
        "environment": {"PYTHONPATH": str(ROOT), "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2"},
    }
    (folder / "profile.yaml").write_text(yaml.safe_dump(PROFILE), encoding="utf-8")
    path = folder / "trio.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path
