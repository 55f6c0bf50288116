"""Parts that several Kubernetes manifests have: metadata, labels, references to Secrets, ports."""

from __future__ import annotations

from typing import Any

from cluster.description.launch_description import LaunchDescription
from cluster.description.ports import PortRange
from cluster.description.targets import SecretKey

Manifest = dict[str, Any]

GROUP = "rejoinder-group"
"""Label of a pod: the name of its node group."""
USER = 1000
"""User and group in the images (cluster/images)."""


def manifest(kind: str, api_version: str, name: str, description: LaunchDescription) -> Manifest:
    """Return the beginning of a manifest: its kind, name and namespace, and the labels of the cluster."""
    metadata = {"name": name, "namespace": description.kubernetes.namespace, "labels": cluster_labels(description)}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def cluster_labels(description: LaunchDescription) -> dict[str, str]:
    """Return the labels that every object of a cluster has."""
    return {"app.kubernetes.io/name": "rejoinder", "app.kubernetes.io/instance": description.name}


def node_pod_labels(description: LaunchDescription) -> dict[str, str]:
    """Return the labels that all pods with a Ray node have, and no other pod."""
    return {**cluster_labels(description), "app.kubernetes.io/component": "ray-node"}


def secret_reference(secret: SecretKey) -> Manifest:
    """Return the source of a value that is in a Secret."""
    return {"secretKeyRef": {"name": secret.name, "key": secret.key}}


def secret_environment(description: LaunchDescription) -> list[Manifest]:
    """Return the environment variables of a container whose values are in Secrets."""
    return [
        {"name": secret.variable, "valueFrom": secret_reference(secret.kubernetes)}
        for secret in description.secrets
        if secret.kubernetes
    ]


def policy_port(ports: int | PortRange) -> Manifest:
    """Return a port or range of ports of a NetworkPolicy."""
    if isinstance(ports, int):
        return {"protocol": "TCP", "port": ports}
    return {"protocol": "TCP", "port": ports.first, "endPort": ports.last}


def container_security() -> Manifest:
    """Return the security context of a container without privileges."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def pod_security() -> Manifest:
    """Return the security context of a pod that does not run as root, and may write to its volumes."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        # Without it, Kubernetes changes the owner of every file of the volume at each start of a pod.
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
