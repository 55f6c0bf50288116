"""The Redis in which Ray's head keeps its state, unless the description names one that exists."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.description.launch_description import LaunchDescription
from cluster.rendering.kuberay.objects import (
    Manifest,
    cluster_labels,
    container_security,
    manifest,
    secret_reference,
)

REDIS_PORT = 6379
REDIS_USER = 999
"""User and group in the official image."""


def redis_name(description: LaunchDescription) -> str:
    """Return the name of the StatefulSet and of its Service."""
    return f"{description.name}-redis"


def redis_labels(description: LaunchDescription) -> dict[str, str]:
    """Return the labels of the Redis pod."""
    return {**cluster_labels(description), "app.kubernetes.io/component": "redis"}


def redis_manifests(description: LaunchDescription) -> Iterator[Manifest]:
    """Yield the StatefulSet and the Service of the Redis; nothing if the description names another one."""
    if description.kubernetes.redis.address:
        return
    labels = redis_labels(description)
    service = manifest("Service", "v1", redis_name(description), description)
    service["spec"] = {"selector": labels, "ports": [{"name": "redis", "port": REDIS_PORT, "targetPort": REDIS_PORT}]}
    yield service
    redis = manifest("StatefulSet", "apps/v1", redis_name(description), description)
    storage = f"{description.kubernetes.redis.storage_gb}Gi"
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}},
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": REDIS_USER,
        "runAsGroup": REDIS_USER,
        "fsGroup": REDIS_USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    redis["spec"] = {
        "serviceName": redis_name(description),
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"securityContext": security, "containers": [_container(description)]},
        },
        "volumeClaimTemplates": [claim],
    }
    yield redis


def _container(description: LaunchDescription) -> Manifest:
    settings = description.kubernetes.redis
    command = ["redis-server", "--appendonly", "yes", "--dir", "/data"]
    container: Manifest = {
        "name": "redis",
        "image": settings.image,
        "ports": [{"name": "redis", "containerPort": REDIS_PORT}],
        "readinessProbe": {"tcpSocket": {"port": REDIS_PORT}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": REDIS_PORT}, "periodSeconds": 10, "failureThreshold": 6},
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    if settings.password:
        container["env"] = [{"name": "REDIS_PASSWORD", "valueFrom": secret_reference(settings.password)}]
        # Kubernetes replaces $(REDIS_PASSWORD) by the variable's value.
        command += ["--requirepass", "$(REDIS_PASSWORD)"]
    container["command"] = command
    return container
