"""The serve profile as it is deployed: with the description's model folder and the labels of its groups."""

from __future__ import annotations

from typing import Any

from cluster.description.launch_description import Launch
from cluster.description.placement import place
from rejoinder.core.settings.serve_file import parse_serve_file


def serve_document(launch: Launch) -> dict[str, Any]:
    """Return the content of the `ray_config.yaml` to deploy.

    It is the profile with the label selectors of `place`, and `models.directory` unless the profile sets it. All other
    settings stay as they are.

    Raises:
        ConfigError: A stage cannot be placed.
    """
    document = dict(launch.profile or {})
    application = dict((document.get("applications") or [{}])[0])
    args = dict(application.get("args", {}))
    for stage, selector in place(launch).items():
        section = dict(args.get(stage) or {})
        if selector:
            section["resources"] = {**section.get("resources", {}), "label_selector": selector}
            args[stage] = section
    args["models"] = {"directory": launch.description.models.mount, **args.get("models", {})}
    default = launch.serve.application
    # `serve deploy` and KubeRay have no defaults for these keys.
    application |= {"name": default.name, "route_prefix": default.route_prefix, "import_path": default.import_path}
    document["applications"] = [application | {"args": args}]
    parse_serve_file(document)
    return document
