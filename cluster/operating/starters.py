"""What starts Ray on the machines of a launch description: `ray start` over SSH, or Ray's cluster launcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from cluster.operating.machines import FOLDER, LaunchedMachines
from cluster.rendering.bare import environment_file, start_script
from cluster.rendering.node_plan import NodePlan
from cluster.rendering.rendered_file import RenderedFile, yaml_file
from cluster.rendering.serve_config import serve_document

MachineTarget = Literal["bare", "ray-up"]
"""Target of a launch on machines."""


class Starter(Protocol):
    """What starts Ray on the machines, and starts it again when it has ended."""

    def start(self, running: set[str]) -> None:
        """Start Ray on every machine, with its files, and wait until it runs.

        Args:
            running: Addresses of the nodes that run already. They keep running.

        Raises:
            BackendError: A machine cannot be reached, or Ray does not start on it.
        """
        ...

    def forget(self, node: NodePlan) -> None:
        """Make sure that nothing starts Ray again on a node, until the next `start`.

        Raises:
            BackendError: The head's machine cannot be reached.
        """
        ...

    def stop_order(self) -> Sequence[Sequence[NodePlan]]:
        """Return the nodes in groups. All nodes of a group may be stopped at the same time, after the group before."""
        ...

    def removal(self, node: NodePlan) -> Sequence[str]:
        """Return shell lines that remove from a machine what was made beside FOLDER and the node's state folder."""
        ...


class SshStarter:
    """Starts Ray with each machine's `ray start` command, over SSH. Nothing starts it again."""

    def __init__(self, machines: LaunchedMachines) -> None:
        self._machines = machines

    def start(self, running: set[str]) -> None:
        """Start Ray on the head, then on the other machines (see `Starter.start`)."""
        machines = self._machines
        machines.each(machines.nodes, self._write)
        for nodes in (machines.nodes[:1], machines.nodes[1:]):  # the others join the head, so it must run before them
            machines.each([node for node in nodes if node.address not in running], self._start)

    def forget(self, node: NodePlan) -> None:
        """Do nothing (see `Starter.forget`)."""

    def stop_order(self) -> Sequence[Sequence[NodePlan]]:
        """Return the head after the others, so that they leave the cluster in order (see `Starter.stop_order`)."""
        return self._machines.nodes[1:], self._machines.nodes[:1]

    def removal(self, node: NodePlan) -> Sequence[str]:
        """Return nothing (see `Starter.removal`)."""
        return ()

    def _write(self, node: NodePlan) -> None:
        launch = self._machines.launch
        files = [
            RenderedFile(f"{node.name}/ray.env", environment_file(node.environment)),
            RenderedFile(f"{node.name}/start-ray.sh", start_script(node, launch.description), executable=True),
        ]
        if node.is_head:
            files.append(yaml_file("ray_config.yaml", [serve_document(launch)], "The application to deploy."))
        self._machines.remote.write(node.address, FOLDER, files)

    def _start(self, node: NodePlan) -> None:
        self._machines.report(f"{node.name}: starting Ray on {node.address}")
        # Ray's processes would keep the connection open if they had its output.
        log = f"{FOLDER}/{node.name}/start.log"
        script = (
            f'"{FOLDER}/{node.name}/start-ray.sh" </dev/null >"{log}" 2>&1 || {{ tail -n 12 "{log}" >&2; exit 1; }}'
        )
        self._machines.remote.run(node.address, f"{script}\n")
