"""Pods with a Ray node: the head, and the workers of a group."""

from __future__ import annotations

import math
from pathlib import PurePosixPath

from cluster.description.groups import NodeGroupDescription
from cluster.description.launch_description import TOKEN_VARIABLE, Launch, LaunchDescription
from cluster.launch import OBJECT_STORE_BYTES
from cluster.rendering.kuberay.model_files import (
    image_pull_secrets,
    model_init_container,
    model_mount,
    model_volume,
)
from cluster.rendering.kuberay.objects import (
    GROUP,
    Manifest,
    container_security,
    node_pod_labels,
    pod_security,
    secret_environment,
)
from cluster.rendering.node_environment import launched_environment

ENVIRONMENT = PurePosixPath("/opt/rejoinder")
"""Virtual environment in the images (cluster/images)."""
HAPROXY = PurePosixPath("/tmp/haproxy-serve")
"""Folder for the files of HAProxy in a container."""
STOP_MARGIN_S = 60
"""Seconds that a pod has, after its last call ended or was closed, to stop Ray."""
BY_KUBERAY = {"RAY_AUTH_MODE", TOKEN_VARIABLE}
"""Environment variables that KubeRay sets from `authOptions`."""


def pod_template(launch: Launch, group: NodeGroupDescription) -> Manifest:
    """Return the template of a group's pods."""
    description = launch.description
    grace = STOP_MARGIN_S if group.role == "head" else drain_seconds(launch) + STOP_MARGIN_S
    ports = description.ports.ephemeral
    range_of_ports = {"name": "net.ipv4.ip_local_port_range", "value": f"{ports.first} {ports.last}"}
    spec = {
        "terminationGracePeriodSeconds": grace,
        "securityContext": {**pod_security(), "sysctls": [range_of_ports]},
        "initContainers": [model_init_container(launch, group)],
        "containers": [_container(launch, group)],
        "volumes": [
            model_volume(description),
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _mebibytes(group.shared_memory_gb)}},
            {"name": "ray-files", "emptyDir": {}},
            *_tls_volume(description),
        ],
        "topologySpreadConstraints": [_spread(description, group)],
        **({"nodeSelector": dict(group.node_selector)} if group.node_selector else {}),
        **image_pull_secrets(description),
    }
    if group.gpu:
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"metadata": {"labels": pod_labels(description, group)}, "spec": spec}


def pod_labels(description: LaunchDescription, group: NodeGroupDescription) -> dict[str, str]:
    """Return the labels of a group's pods."""
    return {**node_pod_labels(description), GROUP: group.name}


def drain_seconds(launch: Launch) -> int:
    """Return the longest time that the calls of a pod may take after its deletion."""
    return math.ceil(launch.serve.application.args.host.graceful_shutdown_timeout_s)


def start_parameters(launch: Launch, group: NodeGroupDescription, *, runs_stages: bool) -> dict[str, str]:
    """Return the options of `ray start` in a group's pods, by name.

    Args:
        launch: The description with its serve profile.
        group: Group of the pods.
        runs_stages: Whether a stage may run on the group. Without stages, Ray gets none of its CPUs to give away.
    """
    ports = launch.description.ports
    parameters = {
        "node-manager-port": ports.node_manager,
        "object-manager-port": ports.object_manager,
        "runtime-env-agent-port": ports.runtime_env_agent,
        "dashboard-agent-listen-port": ports.dashboard_agent,
        "dashboard-agent-grpc-port": ports.dashboard_agent_grpc,
        "metrics-export-port": ports.metrics,
        "min-worker-port": ports.workers.first,
        "max-worker-port": ports.workers.last,
        "object-store-memory": OBJECT_STORE_BYTES,
    }
    if group.role == "head":
        parameters |= {
            "port": ports.gcs,
            "dashboard-port": ports.dashboard,
            "ray-client-server-port": ports.client,
        }
    texts = {name: str(value) for name, value in parameters.items()}
    if group.role == "head":
        texts["dashboard-host"] = "0.0.0.0"
    return texts if runs_stages else {**texts, "num-cpus": "0"}


def _container(launch: Launch, group: NodeGroupDescription) -> Manifest:
    description, is_head = launch.description, group.role == "head"
    variables = {
        name: value
        for name, value in launched_environment(description, group, HAPROXY, environment=ENVIRONMENT).items()
        if name not in BY_KUBERAY
    }
    secrets = [entry for entry in secret_environment(description) if entry["name"] not in BY_KUBERAY]
    container = {
        "name": "ray-head" if is_head else "ray-worker",
        "image": getattr(description.images, group.image),
        "env": [*({"name": name, "value": value} for name, value in variables.items()), *secrets],
        "ports": _ports(description, group),
        "resources": _resources(group),
        "securityContext": container_security(),
        "volumeMounts": [
            model_mount(description),
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "ray-files", "mountPath": "/tmp/ray"},
            *_tls_mount(description),
        ],
        "startupProbe": _probe(_liveness(description, group), period_s=5, failures=60),
        "livenessProbe": _probe(_liveness(description, group), period_s=10, failures=12),
        "readinessProbe": _probe(_readiness(description, group), period_s=5, failures=3),
    }
    if not is_head:
        container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/bash", "-c", drain_script(launch)]}}}
    return container


def _tls_volume(description: LaunchDescription) -> list[Manifest]:
    """Return the volume with the certificate of callers, nothing without TLS."""
    if not description.tls:
        return []
    return [{"name": "tls", "secret": {"secretName": description.tls.secret, "defaultMode": 0o440}}]


def _tls_mount(description: LaunchDescription) -> list[Manifest]:
    if not description.tls:
        return []
    folder = str(PurePosixPath(description.tls.certificate).parent)
    return [{"name": "tls", "mountPath": folder, "readOnly": True}]


def drain_script(launch: Launch) -> str:
    """Return the shell script that a worker's pod runs before it stops.

    Serve then starts replacements on other nodes, and the replicas here end with their last calls. Without it, Ray
    would end at once, and with it all calls of the pod.
    """
    return (
        "ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'The pod is deleted.' "
        f"--deadline-remaining-seconds {drain_seconds(launch)} || exit 0\n"
        "while pgrep -f '^ray::ServeReplica' >/dev/null; do sleep 2; done"
    )


def _ports(description: LaunchDescription, group: NodeGroupDescription) -> list[Manifest]:
    ports = description.ports
    numbers = {"serve": ports.http, "metrics": ports.metrics, "haproxy-metrics": ports.haproxy_metrics}
    if description.tls:
        numbers["https"] = ports.https
    if group.role == "head":
        # KubeRay finds the ports of the head's Service by these names.
        numbers |= {"gcs-server": ports.gcs, "dashboard": ports.dashboard, "client": ports.client}
    return [{"name": name, "containerPort": number} for name, number in numbers.items()]


def _resources(group: NodeGroupDescription) -> Manifest:
    amounts = {"cpu": str(group.cpus), "memory": _mebibytes(group.memory_gb)}
    if group.gpu:
        amounts["nvidia.com/gpu"] = str(group.gpu.count)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _liveness(description: LaunchDescription, group: NodeGroupDescription) -> Manifest:
    """Return the request that a live node answers. Ray asks no token for it."""
    if group.role == "head":
        return {"path": "/api/gcs_healthz", "port": description.ports.dashboard}
    return {"path": "/api/local_raylet_healthz", "port": description.ports.dashboard_agent}


def _readiness(description: LaunchDescription, group: NodeGroupDescription) -> Manifest:
    """Return the request that a node answers while it accepts calls; for the head, while Ray can be reached."""
    if group.role == "head":
        return _liveness(description, group)
    return {"path": "/-/healthz", "port": description.ports.http}


def _probe(request: Manifest, *, period_s: int, failures: int) -> Manifest:
    return {"httpGet": request, "periodSeconds": period_s, "timeoutSeconds": 5, "failureThreshold": failures}


def _spread(description: LaunchDescription, group: NodeGroupDescription) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": pod_labels(description, group)},
    }


def _mebibytes(gibibytes: float) -> str:
    return f"{math.ceil(gibibytes * 1024)}Mi"
