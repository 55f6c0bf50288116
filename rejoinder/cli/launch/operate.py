"""`rejoinder launch up`, `status`, `drain` and `down`: operate the machines of a launch description over SSH."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.description.checks import check_launch
from cluster.description.launch_description import Launch, read_launch
from cluster.operating.machine_cluster import MachineCluster, NodeStatus, status_document
from cluster.operating.remote import SshRemote

Description = Annotated[
    Path, typer.Argument(metavar="DESCRIPTION", help="Launch description; cluster/description/example.yaml is one.")
]
COLOURS = {"alive": "green", "draining": "yellow", "dead": "red", "down": "dim"}


class UpTarget(Enum):
    """What starts Ray on the machines."""

    BARE = "bare"
    RAY_UP = "ray-up"


Target = Annotated[
    UpTarget,
    typer.Option(
        help="bare: `ray start` on each machine over SSH. ray-up: Ray's cluster launcher, which starts the head; the "
        "head starts the other machines, and starts them again when they have died."
    ),
]


def up(description: Description, target: Target = UpTarget.BARE) -> None:
    """Start Ray on every machine of a description, deploy the application, and wait until each entry accepts calls.

    Machines on which Ray runs already are kept. Secret variables of the description that are set here are passed on;
    the others must be in the secrets file of each machine.

    Exit status: 0, or 2 after an error.
    """
    launch = read_launch(description)
    for note in check_launch(launch, target.value):
        typer.echo(f"Note: {note}", err=True)
    _cluster(launch).up(target.value)


def status(
    description: Description,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the machines of a description: what Ray's head says of each, and whether its entry accepts calls.

    Exit status: 0 if every node is alive and every entry accepts calls, 1 if not, 2 after an error.
    """
    found = _cluster(read_launch(description)).status()
    if json_:
        typer.echo(status_document(found))
    else:
        Console().print(_table(found))
    if any(_state(node) != "alive" or node.entry != "accepts calls" for node in found):
        raise typer.Exit(1)


def drain(
    description: Description,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of the node, such as cpu-2, or its address.")],
    within: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Longest wait for the node's calls to end.")
    ] = 7200,
) -> None:
    """Move the work of a node to the others, wait until its calls have ended, and stop Ray on it.

    `rejoinder launch up` starts it again; nothing else does.

    Exit status: 0, or 2 after an error.
    """
    _cluster(read_launch(description)).drain(node, within)


def down(
    description: Description,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop the application and Ray on every machine of a description, and delete their files. Calls are cut off.

    `ray stop` ends every Ray process of a machine, also those of another cluster. Models and checkouts stay.

    Exit status: 0, or 2 after an error.
    """
    launch = read_launch(description)
    if not yes:
        typer.confirm(f"Stop the cluster {launch.description.name} and cut off its calls?", abort=True)
    _cluster(launch).down()


def _cluster(launch: Launch) -> MachineCluster:
    given = {name: os.environ[name] for name in launch.description.secret_variables if os.environ.get(name)}
    return MachineCluster(launch, SshRemote(launch.description, given), typer.echo, secrets=given)


def _state(status: NodeStatus) -> str:
    return status.node.state.value if status.node else "down"


def _table(found: list[NodeStatus]) -> Table:
    table = Table("node", "address", "state", "CPUs", "labels", "entry")
    for status in found:
        state = _state(status)
        labels = {key: value for key, value in (status.node.labels if status.node else {}).items() if "/" not in key}
        table.add_row(
            status.name,
            status.address,
            f"[{COLOURS[state]}]{state}[/]",
            f"{status.node.resources.get('CPU', 0):g}" if status.node else "",
            ", ".join(f"{key}={value}" for key, value in labels.items()),
            status.entry,
        )
    return table
