"""`rejoinder launch render`: the files that start a cluster on Kubernetes, with `ray up` or with `ray start`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cluster.description.checks import check_launch
from cluster.description.launch_description import read_launch
from cluster.rendering.rendered_file import write_files
from cluster.rendering.targets import NEXT_STEPS, render_files


class LaunchTarget(Enum):
    """What a cluster is launched with."""

    KUBERAY = "kuberay"
    RAY_UP = "ray-up"
    BARE = "bare"


def render(
    description: Annotated[
        Path, typer.Argument(metavar="DESCRIPTION", help="Launch description; cluster/description/example.yaml is one.")
    ],
    target: Annotated[
        LaunchTarget,
        typer.Option(
            help="kuberay: manifests for the KubeRay operator. ray-up: files for Ray's cluster launcher. "
            "bare: `ray start` scripts and systemd units for each machine."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files, which is created if necessary.")],
) -> None:
    """Check a launch description and write the files that start its cluster.

    Nothing is started. Files of an earlier rendering are replaced.

    Exit status: 0, or 2 after an error in the description or in its serve profile.
    """
    launch = read_launch(description)
    for note in check_launch(launch, target.value):
        typer.echo(f"Note: {note}", err=True)
    files = list(render_files(launch, target.value, out))
    write_files(files, out)
    for file in files:
        typer.echo(out / file.path)
    typer.echo(NEXT_STEPS[target.value].format(out=out))
