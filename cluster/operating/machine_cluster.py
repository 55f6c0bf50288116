"""A cluster of machines that a launch description names: start it, show it, drain a node of it, stop it.

Everything runs on the machines, over SSH, with the files that `rejoinder launch render` writes. This computer needs no
access to Ray's ports, only to the entries (HAProxy), whose health it checks.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.description.launch_description import Launch
from cluster.nodes import ClusterNode, NodeState, from_json, pick
from cluster.operating.remote import Remote
from cluster.rendering.bare import environment_file, start_script
from cluster.rendering.node_plan import NodePlan, plan_nodes
from cluster.rendering.rendered_file import RenderedFile, yaml_file
from cluster.rendering.serve_config import serve_document
from rejoinder.core.errors import BackendError, ConfigError

FOLDER = "$HOME/rejoinder-launch"
"""Folder of the rendered files on every machine, the same to which `ray up` copies them."""
READY_S = 600.0
POLL_S = 2.0
HEALTH_S = 3.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """State of one machine of the description.

    Attributes:
        name: Name of the node: its group and its number in the group.
        address: Address of the machine.
        node: The node as Ray's head sees it, the newest if it was started more than once; None if it never joined.
        entry: What the machine's HAProxy answers: "accepts calls", "no host yet" or "no answer".
    """

    name: str
    address: str
    node: ClusterNode | None
    entry: str


class MachineCluster:
    """Operations on the machines of a launch description.

    Args:
        launch: The description with its serve profile.
        remote: Access to the machines.
        report: Receives one line of text for each step.
    """

    def __init__(self, launch: Launch, remote: Remote, report: Report = lambda _: None) -> None:
        self._launch = launch
        self._remote = remote
        self._report = report
        self._nodes = plan_nodes(launch.description)

    @property
    def _head(self) -> NodePlan:
        return self._nodes[0]

    @property
    def _gcs(self) -> str:
        return f"{self._head.address}:{self._launch.description.ports.gcs}"

    # -- start ---------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start Ray on every machine on which it does not run, deploy the application, and wait for every entry.

        A cluster that runs already keeps its nodes, and gets the serve profile of the description.

        Raises:
            BackendError: A machine cannot be reached, or Ray or the application does not start.
        """
        self._each(self._nodes, self._write)
        running = {node.address for node in self._view() if node.state is not NodeState.DEAD}
        for nodes in (self._nodes[:1], self._nodes[1:]):  # the others join the head, so it must run before them
            self._each([node for node in nodes if node.address not in running], self._start)
        self.deploy()

    def deploy(self) -> None:
        """Deploy the application on the running cluster, and wait until every entry accepts calls.

        Raises:
            BackendError: An entry does not accept calls in time.
        """
        dashboard = f"http://{self._head.address}:{self._launch.description.ports.dashboard}"
        self._report(f"{self._head.name}: deploying the application")
        self._run(self._head, f'serve deploy "{FOLDER}/ray_config.yaml" --address {dashboard}')
        deadline = time.monotonic() + READY_S
        waiting = list(self._nodes)
        while waiting:
            for node in list(waiting):
                if self._entry(node) == "accepts calls":
                    self._report(f"{node.name}: http://{node.address}:{self._port} accepts calls")
                    waiting.remove(node)
            if waiting and time.monotonic() > deadline:
                names = ", ".join(node.name for node in waiting)
                raise BackendError(
                    f"{names}: no calls are accepted after {READY_S:g} s.", "Run `serve status` on the head."
                )
            time.sleep(POLL_S if waiting else 0)

    def _write(self, node: NodePlan) -> None:
        description = self._launch.description
        files = [
            RenderedFile(f"{node.name}/ray.env", environment_file(node.environment)),
            RenderedFile(f"{node.name}/start-ray.sh", start_script(node, description), executable=True),
        ]
        if node.is_head:
            files.append(yaml_file("ray_config.yaml", [serve_document(self._launch)], "The application to deploy."))
        self._remote.write(node.address, FOLDER, files)

    def _start(self, node: NodePlan) -> None:
        self._report(f"{node.name}: starting Ray on {node.address}")
        # Ray's processes would keep the connection open if they had its output.
        log = f"{FOLDER}/{node.name}/start.log"
        script = (
            f'"{FOLDER}/{node.name}/start-ray.sh" </dev/null >"{log}" 2>&1 || {{ tail -n 12 "{log}" >&2; exit 1; }}'
        )
        self._remote.run(node.address, f"{script}\n")

    # -- status --------------------------------------------------------------------------------------------------------

    def status(self) -> list[NodeStatus]:
        """Return the state of every machine of the description.

        Raises:
            BackendError: The head's machine cannot be reached.
        """
        seen: dict[str, ClusterNode] = {}
        for node in self._view():
            if node.address not in seen or seen[node.address].state is NodeState.DEAD:
                seen[node.address] = node
        with ThreadPoolExecutor() as pool:
            entries = list(pool.map(self._entry, self._nodes))
        return [
            NodeStatus(node.name, node.address, seen.get(node.address), entry)
            for node, entry in zip(self._nodes, entries, strict=True)
        ]

    def _view(self) -> list[ClusterNode]:
        """Return the nodes as the head sees them; empty if no head runs."""
        # Without the prelude's file the head was never started.
        script = f'[ -e "{FOLDER}/{self._head.name}/ray.env" ] || {{ echo "[]"; exit 0; }}\n'
        command = f"python -m cluster.nodes {self._gcs} || echo '[]'"
        return from_json(self._remote.run(self._head.address, f"{script}{self._prelude(self._head)}{command}\n"))

    @property
    def _port(self) -> int:
        return self._launch.description.ports.http

    def _entry(self, node: NodePlan) -> str:
        try:
            with urllib.request.urlopen(f"http://{node.address}:{self._port}/healthz", timeout=HEALTH_S):
                return "accepts calls"
        except urllib.error.HTTPError:
            return "no host yet"
        except OSError:
            return "no answer"

    # -- stop ----------------------------------------------------------------------------------------------------------

    def drain(self, name: str, within_s: float) -> None:
        """Move the work of a node elsewhere, wait until its calls have ended, and stop Ray on it.

        Args:
            name: Name of the node in the description, such as `cpu-2`, or address of its machine.
            within_s: Longest time in seconds that its calls have to end. Calls that remain then are cut off.

        Raises:
            ConfigError: There is no such node, or it is the head.
            BackendError: A machine cannot be reached, or Ray refuses.
        """
        plan = next((node for node in self._nodes if name in (node.name, node.address)), None)
        if plan is None:
            names = ", ".join(node.name for node in self._nodes[1:]) or "none"
            raise ConfigError(f"the description has no node {name!r}.", f"Name one of: {names}.", field="NODE")
        target = pick(self._view(), plan.address)
        request = f"python -m cluster.nodes {self._gcs} drain {target.node_id} {within_s:g}"
        self._run(self._head, request)
        self._report(f"{plan.name}: draining, for at most {within_s:g} s")
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if all(node.state is NodeState.DEAD for node in self._view() if node.node_id == target.node_id):
                break
            time.sleep(POLL_S)
        self._stop(plan)

    def down(self) -> None:
        """Remove the application, stop Ray on every machine, and delete what `up` wrote there. Calls are cut off.

        Machines on which nothing runs are left as they are.

        Raises:
            BackendError: A machine cannot be reached.
        """
        if any(node.state is not NodeState.DEAD for node in self._view()):
            self._report(f"{self._head.name}: removing the application")
            dashboard = f"http://{self._head.address}:{self._launch.description.ports.dashboard}"
            # The application also ends with Ray. Removed before, it closes its calls in order and ends HAProxy.
            self._run(self._head, f"serve shutdown -y --address {dashboard} || true")
        for nodes in (self._nodes[1:], self._nodes[:1]):
            self._each(nodes, self._stop)

    def _stop(self, node: NodePlan) -> None:
        self._report(f"{node.name}: stopping Ray on {node.address}")
        machines = self._launch.description.machines
        # HAProxy outlives Ray's processes if these were killed. The brackets keep the pattern from finding itself.
        script = [
            f"{machines.virtualenv}/bin/ray stop >/dev/null",
            f"pkill -KILL -f '[h]aproxy .*{node.haproxy}/' || true",
            f'rm -rf "{node.state}/ray" "{node.state}/tmp" "{node.haproxy}" "{FOLDER}"',
            f'rmdir "{node.state}" 2>/dev/null || true',
        ]
        self._remote.run(node.address, "set -e\n" + "\n".join(script) + "\n")

    # -- scripts -------------------------------------------------------------------------------------------------------

    def _each(self, nodes: Sequence[NodePlan], work: Callable[[NodePlan], None]) -> None:
        """Do `work` for all nodes at the same time. Raise the first error after all have ended."""
        with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
            for done in [pool.submit(work, node) for node in nodes]:
                done.result()

    def _run(self, node: NodePlan, command: str) -> str:
        return self._remote.run(node.address, f"set -e\n{self._prelude(node)}{command}\n")

    def _prelude(self, node: NodePlan) -> str:
        """Return shell lines that give the following ones the environment of Ray's processes on the node."""
        machines = self._launch.description.machines
        secrets = machines.secrets_file
        lines: Iterable[str] = (
            "set -a",
            f'. "{FOLDER}/{node.name}/ray.env"',
            f"if [ -r {secrets} ]; then . {secrets}; fi",
            f'PATH="{machines.virtualenv}/bin:$PATH"',
            "set +a",
            f"cd {machines.checkout}",
        )
        return "\n".join(lines) + "\n"


def status_document(statuses: Sequence[NodeStatus]) -> str:
    """Return the states of the machines as JSON: a list of objects with name, address, state, entry, cpus, labels."""
    return json.dumps(
        [
            {
                "name": status.name,
                "address": status.address,
                "state": status.node.state.value if status.node else "down",
                "entry": status.entry,
                "cpus": status.node.resources.get("CPU", 0) if status.node else 0,
                "labels": status.node.labels if status.node else {},
            }
            for status in statuses
        ],
        indent=1,
    )
