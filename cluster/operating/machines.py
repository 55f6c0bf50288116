"""The machines of a launch description: commands on them with the environment of Ray's processes, and Ray's view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cluster.description.launch_description import Launch
from cluster.nodes import ClusterNode, NodeState, from_json
from cluster.operating.remote import Remote
from cluster.rendering.node_plan import NodePlan, plan_nodes

FOLDER = "$HOME/rejoinder-launch"
"""Folder of the rendered files on every machine, the same to which `ray up` copies them."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class LaunchedMachines:
    """The machines of a launch description.

    Attributes:
        launch: The description with its serve profile.
        remote: Access to the machines.
        report: Receives one line of text for each step.
        secrets: Values of the secret environment variables that are known here, by name.
        nodes: The machines as nodes of the cluster, the head first.
    """

    launch: Launch
    remote: Remote
    report: Report = lambda _: None
    secrets: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[NodePlan, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", plan_nodes(self.launch.description))

    @property
    def head(self) -> NodePlan:
        """The machine of Ray's head."""
        return self.nodes[0]

    @property
    def gcs(self) -> str:
        """HOST:PORT of Ray's head."""
        return f"{self.head.address}:{self.launch.description.ports.gcs}"

    @property
    def dashboard(self) -> str:
        """URL of Ray's dashboard."""
        return f"http://{self.head.address}:{self.launch.description.ports.dashboard}"

    def run(self, node: NodePlan, command: str) -> str:
        """Run shell lines on a machine with the environment of Ray's processes there, and return what they printed.

        Raises:
            BackendError: The machine cannot be reached, or the command failed.
        """
        return self.remote.run(node.address, f"set -e\n{self._prelude(node)}{command}\n")

    def each(self, nodes: Sequence[NodePlan], work: Callable[[NodePlan], None]) -> None:
        """Do `work` for all nodes at the same time. Raise the first error after all have ended."""
        with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
            for done in [pool.submit(work, node) for node in nodes]:
                done.result()

    def view(self) -> list[ClusterNode]:
        """Return the nodes as the head sees them; empty if no head runs.

        Raises:
            BackendError: The head's machine cannot be reached.
        """
        # Without the prelude's file the head was never started.
        script = f'[ -e "{FOLDER}/{self.head.name}/ray.env" ] || {{ echo "[]"; exit 0; }}\n'
        command = f"python -m cluster.nodes {self.gcs} || echo '[]'"
        return from_json(self.remote.run(self.head.address, f"{script}{self._prelude(self.head)}{command}\n"))

    def running(self) -> set[str]:
        """Return the addresses of the nodes that run, also those that are drained."""
        return {node.address for node in self.view() if node.state is not NodeState.DEAD}

    def _prelude(self, node: NodePlan) -> str:
        """Return shell lines that give the following ones the environment of Ray's processes on the node."""
        machines = self.launch.description.machines
        # The second file exists on machines that `ray up` has started.
        secrets = (machines.secrets_file, f"{FOLDER}/secrets.env")
        lines = (
            "set -a",
            f'. "{FOLDER}/{node.name}/ray.env"',
            *[f'if [ -r "{path}" ]; then . "{path}"; fi' for path in secrets],
            f'PATH="{machines.virtualenv}/bin:$PATH"',
            "set +a",
            f"cd {machines.checkout}",
        )
        return "\n".join(lines) + "\n"
