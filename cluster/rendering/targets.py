"""The renderer of each launch target, and what to do with the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cluster.description.launch_description import Launch, Target
from cluster.rendering.bare import render_bare
from cluster.rendering.kuberay.manifests import render_kuberay
from cluster.rendering.ray_up import render_ray_up
from cluster.rendering.rendered_file import RenderedFile

NEXT_STEPS: Mapping[Target, str] = {
    "kuberay": "Next: kubectl apply -k {out} (docs/how-to/deploy-kubernetes.md)",
    "ray-up": "Next: ray up {out}/cluster.yaml (docs/how-to/deploy-ray-up.md)",
    "bare": "Next: copy {out} to each machine and run nodes/NODE/install.sh there (docs/how-to/deploy-ray-up.md)",
}


def render_files(launch: Launch, target: Target, folder: Path) -> Iterator[RenderedFile]:
    """Yield the files of a target.

    Args:
        launch: The description with its serve profile.
        target: What the cluster is launched with.
        folder: Folder that the files will be written to.

    Raises:
        ConfigError: The description does not suit the target, or a stage cannot be placed.
    """
    if target == "bare":
        yield from render_bare(launch)
    elif target == "ray-up":
        yield from render_ray_up(launch, folder)
    else:
        yield from render_kuberay(launch)
