"""The volume with model files, and the Job or init container that fills it.

A claim is filled once by a Job, and pods wait for it. A folder of the Kubernetes nodes is filled by each pod, because a
Job would fill the folder of one node only; files that are complete are not fetched again.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator

from cluster.description.groups import NodeGroupDescription
from cluster.description.launch_description import Launch, LaunchDescription
from cluster.doctor.machine import needed_models
from cluster.rendering.kuberay.objects import (
    Manifest,
    cluster_labels,
    container_security,
    manifest,
    pod_security,
    secret_environment,
)
from rejoinder.core.settings.settings import Settings

VOLUME = "models"


def model_volume(description: LaunchDescription) -> Manifest:
    """Return the volume of a pod that has the model files."""
    models = description.models
    if models.claim:
        return {"name": VOLUME, "persistentVolumeClaim": {"claimName": models.claim}}
    return {"name": VOLUME, "hostPath": {"path": models.host_path, "type": "Directory"}}


def model_mount(description: LaunchDescription) -> Manifest:
    """Return the mount of the volume in a container."""
    return {"name": VOLUME, "mountPath": description.models.mount}


def model_manifests(launch: Launch) -> Iterator[Manifest]:
    """Yield the claim and the Job that fills it; nothing if the files are in a folder of the Kubernetes nodes."""
    description = launch.description
    models = description.models
    if not models.claim:
        return
    claim = manifest("PersistentVolumeClaim", "v1", models.claim, description)
    claim["spec"] = {
        "accessModes": [models.access_mode],
        "resources": {"requests": {"storage": f"{models.storage_gb}Gi"}},
        **({"storageClassName": models.storage_class} if models.storage_class else {}),
    }
    yield claim
    # A Job cannot be changed, so another list of models is another Job.
    job = manifest("Job", "batch/v1", f"{description.name}-models-{_digest(launch)}", description)
    container = _container(launch, "pull-models", _image(description), f"{_pull(launch)}\ntouch {_marker(launch)}")
    pod = {
        "restartPolicy": "OnFailure",
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [model_volume(description)],
        **image_pull_secrets(description),
    }
    labels = {**cluster_labels(description), "app.kubernetes.io/component": "models"}
    job["spec"] = {"backoffLimit": 10, "template": {"metadata": {"labels": labels}, "spec": pod}}
    yield job


def model_init_container(launch: Launch, group: NodeGroupDescription) -> Manifest:
    """Return the container that runs before a Ray node: it waits for the Job, or fetches the files into the folder."""
    image = getattr(launch.description.images, group.image)
    if launch.description.models.claim:
        wait = f"until [ -e {_marker(launch)} ]; do echo 'The models are not complete yet.'; sleep 5; done"
        return _container(launch, "wait-for-models", image, wait)
    return _container(launch, "pull-models", image, _pull(launch))


def image_pull_secrets(description: LaunchDescription) -> Manifest:
    """Return the credentials of the image registry as a part of a pod; {} if there are none."""
    names = description.kubernetes.image_pull_secrets
    return {"imagePullSecrets": [{"name": name} for name in names]} if names else {}


def _container(launch: Launch, name: str, image: str, script: str) -> Manifest:
    """Return a container that runs a shell script, with the variables and secrets of the Hugging Face hub only."""
    description = launch.description
    variables = {"HF_HOME": f"{description.models.mount}/huggingface", **description.environment}
    return {
        "name": name,
        "image": image,
        "command": ["/bin/bash", "-ceu", script],
        "env": [
            *({"name": key, "value": value} for key, value in variables.items() if key.startswith("HF_")),
            *(entry for entry in secret_environment(description) if entry["name"].startswith("HF_")),
        ],
        "securityContext": container_security(),
        "volumeMounts": [model_mount(description)],
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
    }


def _image(description: LaunchDescription) -> str:
    """Return the image of the Job: the one for CPUs if the description has it, which is the smaller one."""
    return description.images.cpu or getattr(description.images, description.head.image)


def _pull(launch: Launch) -> str:
    """Return the shell commands that fetch every model which the serve profile needs."""
    directory = launch.description.models.mount
    settings = launch.serve.application.args
    names = list(launch.description.models.pull) or [
        name for name in needed_models(launch.serve) if name[0] not in "/~"
    ]
    converted = [name for name in names if name in _vllm_models(settings)]
    plain = [name for name in names if name not in converted]
    commands = [["rejoinder", "models", "pull", "--directory", directory, *plain]] if plain else []
    commands += [["rejoinder", "models", "pull", "--directory", directory, "--form", "hf", name] for name in converted]
    for repository, revision in _hub_models(settings):
        commands.append(["hf", "download", repository, *(["--revision", revision] if revision else [])])
    return "\n".join(shlex.join(command) for command in commands)


def _vllm_models(settings: Settings) -> set[str]:
    """Return the names of models that vLLM loads from the model store, in Hugging Face's form."""
    stages = (settings.llm, settings.llm_backup)
    return {stage.model for stage in stages if stage and stage.engine == "vllm" and "/" not in stage.model}


def _hub_models(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the repositories that vLLM loads from the hub, each with its revision, "" for the newest."""
    for stage in (settings.llm, settings.llm_backup):
        if stage is None or stage.engine != "vllm":
            continue
        if "/" in stage.model and stage.model[0] not in "/~":
            yield stage.model, stage.vllm.revision
        head = stage.vllm.speculative.model
        if head and head[0] not in "/~":
            yield head, ""


def _digest(launch: Launch) -> str:
    return hashlib.sha256(_pull(launch).encode()).hexdigest()[:8]


def _marker(launch: Launch) -> str:
    """Return the path of the file that the Job writes at its end."""
    return f"{launch.description.models.mount}/.pulled-{_digest(launch)}"
