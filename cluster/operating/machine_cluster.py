"""A cluster of machines that a launch description names: start it, show it, drain a node of it, stop it.

Everything runs on the machines, over SSH, with the files that `rejoinder launch render` writes. This computer needs no
access to Ray's ports, only to the entries (HAProxy), whose health it checks.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.description.launch_description import Launch
from cluster.nodes import ClusterNode, NodeState, pick
from cluster.operating.machines import FOLDER, LaunchedMachines, Report
from cluster.operating.ray_up import RayUpStarter
from cluster.operating.remote import Remote
from cluster.operating.starters import MachineTarget, SshStarter, Starter
from cluster.rendering.node_plan import NodePlan
from cluster.rendering.ray_up import FIND_NODE
from rejoinder.core.errors import BackendError, ConfigError

READY_S = 600.0
POLL_S = 2.0
HEALTH_S = 3.0


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
        secrets: Values of the secret environment variables that are known here, by name.
    """

    def __init__(
        self,
        launch: Launch,
        remote: Remote,
        report: Report = lambda _: None,
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._launch = launch
        self._machines = LaunchedMachines(launch, remote, report, secrets or {})

    # -- start ---------------------------------------------------------------------------------------------------------

    def up(self, target: MachineTarget = "bare") -> None:
        """Start Ray on every machine on which it does not run, deploy the application, and wait for the entries.

        A cluster that runs already keeps its nodes, and gets the serve profile of the description. If it serves, `up`
        waits only for the entries that accepted calls before: Serve opens an entry on an added node together with the
        first replica there, and may never need one.

        Args:
            target: What starts Ray.

        Raises:
            ConfigError: The cluster runs, and something else than `target` has started it.
            BackendError: A machine cannot be reached, or Ray or the application does not start.
        """
        running = self._machines.running()
        if running and (found := self._target()) != target:
            raise ConfigError(
                f"the cluster runs, and was launched with --target {found}.",
                f"Use --target {found}, or stop it first: `rejoinder launch down`.",
                field="--target",
            )
        serving = [node for node in self._machines.nodes if running and self._entry(node) == "accepts calls"]
        self._starter(target).start(running)
        self._deploy(serving or self._machines.nodes)

    def _target(self) -> MachineTarget:
        """Return what has started Ray on the head's machine. Only `ray up` copies a certain file there."""
        script = f'if [ -e "{FOLDER}/{FIND_NODE}" ]; then echo ray-up; fi\n'
        found = self._machines.remote.run(self._machines.head.address, script).strip()
        return "ray-up" if found == "ray-up" else "bare"

    def _starter(self, target: MachineTarget) -> Starter:
        return SshStarter(self._machines) if target == "bare" else RayUpStarter(self._machines)

    def _deploy(self, awaited: Sequence[NodePlan]) -> None:
        """Deploy the application on the running cluster, and wait until the entries of some nodes accept calls.

        Raises:
            BackendError: An entry does not accept calls in time.
        """
        machines = self._machines
        machines.report(f"{machines.head.name}: deploying the application")
        machines.run(machines.head, f'serve deploy "{FOLDER}/ray_config.yaml" --address {machines.dashboard}')
        deadline = time.monotonic() + READY_S
        waiting = list(awaited)
        while waiting:
            for node in list(waiting):
                if self._entry(node) == "accepts calls":
                    machines.report(f"{node.name}: http://{node.address}:{self._port} accepts calls")
                    waiting.remove(node)
            if waiting and time.monotonic() > deadline:
                names = ", ".join(node.name for node in waiting)
                raise BackendError(
                    f"{names}: no calls are accepted after {READY_S:g} s.", "Run `serve status` on the head."
                )
            time.sleep(POLL_S if waiting else 0)
        for node in machines.nodes:
            if node not in awaited:
                machines.report(f"{node.name}: accepts calls once a replica has started there")

    # -- status --------------------------------------------------------------------------------------------------------

    def status(self) -> list[NodeStatus]:
        """Return the state of every machine of the description.

        Raises:
            BackendError: The head's machine cannot be reached.
        """
        seen: dict[str, ClusterNode] = {}
        for node in self._machines.view():
            if node.address not in seen or seen[node.address].state is NodeState.DEAD:
                seen[node.address] = node
        with ThreadPoolExecutor() as pool:
            entries = list(pool.map(self._entry, self._machines.nodes))
        return [
            NodeStatus(node.name, node.address, seen.get(node.address), entry)
            for node, entry in zip(self._machines.nodes, entries, strict=True)
        ]

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
        machines = self._machines
        plan = next((node for node in machines.nodes if name in (node.name, node.address)), None)
        if plan is None:
            names = ", ".join(node.name for node in machines.nodes[1:]) or "none"
            raise ConfigError(f"the description has no node {name!r}.", f"Name one of: {names}.", field="NODE")
        target = pick(machines.view(), plan.address)
        starter = self._starter(self._target())
        machines.run(machines.head, f"python -m cluster.nodes {machines.gcs} drain {target.node_id} {within_s:g}")
        starter.forget(plan)
        machines.report(f"{plan.name}: draining, for at most {within_s:g} s")
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if all(node.state is NodeState.DEAD for node in machines.view() if node.node_id == target.node_id):
                break
            time.sleep(POLL_S)
        self._stop(plan, starter)

    def down(self) -> None:
        """Remove the application, stop Ray on every machine, and delete what `up` wrote there. Calls are cut off.

        Machines on which nothing runs are left as they are.

        Raises:
            BackendError: A machine cannot be reached.
        """
        machines = self._machines
        starter = self._starter(self._target())
        if machines.running():
            machines.report(f"{machines.head.name}: removing the application")
            # The application also ends with Ray. Removed before, it closes its calls in order and ends HAProxy.
            machines.run(machines.head, f"serve shutdown -y --address {machines.dashboard} || true")
        for nodes in starter.stop_order():
            machines.each(nodes, lambda node: self._stop(node, starter))

    def _stop(self, node: NodePlan, starter: Starter) -> None:
        self._machines.report(f"{node.name}: stopping Ray on {node.address}")
        # HAProxy outlives Ray's processes if these were killed. The brackets keep the pattern from finding itself.
        script = [
            f"{self._launch.description.machines.virtualenv}/bin/ray stop >/dev/null",
            f"pkill -KILL -f '[h]aproxy .*{node.haproxy}/' || true",
            f'rm -rf "{node.state}/ray" "{node.state}/tmp" "{node.haproxy}" "{FOLDER}"',
            f'rmdir "{node.state}" 2>/dev/null || true',
            *starter.removal(node),
        ]
        self._machines.remote.run(node.address, "set -e\n" + "\n".join(script) + "\n")


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
