"""How Ray is started on each machine of a launch description: the environment and the `ray start` command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from cluster.description.addresses import is_ipv4
from cluster.description.groups import NodeGroupDescription
from cluster.description.launch_description import LaunchDescription
from cluster.haproxy import METRICS_HOST
from cluster.rendering.node_environment import launched_environment
from rejoinder.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One machine of a cluster.

    Attributes:
        name: Name of the node: its group, and its number in the group from 1.
        address: IPv4 address or host name of the machine.
        group: Group of the machine.
        is_head: True for the machine with Ray's head.
        environment: Environment variables of Ray's processes by name, without the secret ones.
        start: Command that starts Ray and returns, as a list of arguments. With `--block` added it stays in the
            foreground.
        state: Folder for the files of Ray and HAProxy on the machine.
        haproxy: Folder inside of it for the files of HAProxy.
    """

    name: str
    address: str
    group: NodeGroupDescription
    is_head: bool
    environment: dict[str, str]
    start: tuple[str, ...]
    state: PurePosixPath
    haproxy: PurePosixPath


def plan_nodes(description: LaunchDescription) -> tuple[NodePlan, ...]:
    """Return the machines of a description in the order in which they start: the head first.

    Raises:
        ConfigError: A group has no addresses.
    """
    for number, group in enumerate(description.groups):
        if not group.addresses:
            raise ConfigError(
                f"group {group.name} has no machines.",
                "Add addresses, or render it for Kubernetes (--target kuberay).",
                field=f"groups.{number}.addresses",
            )
    groups = (description.head, *description.workers)
    return tuple(
        _plan(description, group, number, address)
        for group in groups
        for number, address in enumerate(group.addresses, start=1)
    )


def _plan(description: LaunchDescription, group: NodeGroupDescription, number: int, address: str) -> NodePlan:
    name = f"{group.name}-{number}"
    state = PurePosixPath(description.machines.state)
    haproxy = state / "haproxy"
    return NodePlan(
        name=name,
        address=address,
        group=group,
        is_head=group.role == "head",
        environment={
            **launched_environment(
                description, group, haproxy, environment=PurePosixPath(description.machines.virtualenv)
            ),
            # A host name may have several addresses, and HAProxy would take the first.
            **({METRICS_HOST: address} if is_ipv4(address) else {}),
        },
        start=_start(description, group, address),
        state=state,
        haproxy=haproxy,
    )


def _start(description: LaunchDescription, group: NodeGroupDescription, address: str) -> tuple[str, ...]:
    ports, machines = description.ports, description.machines
    ray = f"{machines.virtualenv}/bin/ray"
    if group.role == "head":
        joining = [
            "--head",
            f"--port={ports.gcs}",
            f"--dashboard-port={ports.dashboard}",
            "--dashboard-host=0.0.0.0",
            f"--ray-client-server-port={ports.client}",
        ]
    else:
        joining = [f"--address={description.head.addresses[0]}:{ports.gcs}"]
    labels = ",".join(f"{key}={value}" for key, value in description.labels(group).items())
    return (
        *(ray, "start", *joining),
        # A host name is left out: Ray would register the node under it, and compare it with addresses.
        *([f"--node-ip-address={address}"] if is_ipv4(address) else []),
        # There is no --node-name: Serve would give it to HAProxy as the address of the head's proxy, and HAProxy does
        # not start with an address that it cannot resolve.
        f"--node-manager-port={ports.node_manager}",
        f"--object-manager-port={ports.object_manager}",
        f"--runtime-env-agent-port={ports.runtime_env_agent}",
        f"--dashboard-agent-listen-port={ports.dashboard_agent}",
        f"--dashboard-agent-grpc-port={ports.dashboard_agent_grpc}",
        f"--metrics-export-port={ports.metrics}",
        f"--min-worker-port={ports.workers.first}",
        f"--max-worker-port={ports.workers.last}",
        f"--num-cpus={group.cpus}",
        *([f"--num-gpus={group.gpu.count}"] if group.gpu else []),
        f"--object-store-memory={machines.object_store_mb * 1024**2}",
        f"--temp-dir={machines.state}/ray",
        f"--labels={labels}",
    )
