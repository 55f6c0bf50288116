"""The RayService: the Ray cluster with its node groups, the application, and how both are upgraded."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import yaml

from cluster.description.groups import NodeGroupDescription
from cluster.description.launch_description import Launch, LaunchDescription
from cluster.description.placement import place
from cluster.fitting import demands, matches
from cluster.rendering.kuberay.objects import Manifest, manifest, secret_reference
from cluster.rendering.kuberay.pods import pod_template, start_parameters
from cluster.rendering.kuberay.redis import REDIS_PORT, redis_name
from cluster.rendering.serve_config import serve_document

HTTPS = 443
"""Port of the Service for callers with TLS."""
IDLE_S = 600
"""Seconds after which Ray's autoscaler removes a pod without replicas. A new pod takes minutes to load its models."""


def ray_service(launch: Launch) -> Manifest:
    """Return the RayService of a launch.

    Raises:
        ConfigError: A stage cannot be placed.
    """
    description = launch.description
    settings = description.kubernetes
    service = manifest("RayService", "ray.io/v1", description.name, description)
    service["spec"] = {
        "serveConfigV2": yaml.safe_dump(serve_document(launch), sort_keys=False, width=1000),
        "upgradeStrategy": _upgrade(description),
        "rayClusterDeletionDelaySeconds": settings.drain_s,
        "excludeHeadPodFromServeSvc": not _runs(launch, description.head, "host"),
        "serveService": {
            "metadata": {"annotations": dict(settings.service_annotations)},
            "spec": {
                "type": settings.service_type,
                # Only Kubernetes nodes with a pod that accepts calls get them, without a hop to another node.
                **({} if settings.service_type == "ClusterIP" else {"externalTrafficPolicy": "Local"}),
                "ports": [
                    {"name": name, "port": port, "targetPort": target}
                    for name, port, target in _service_ports(description)
                ],
            },
        },
        "rayClusterConfig": _cluster(launch),
    }
    return service


def _service_ports(description: LaunchDescription) -> list[tuple[str, int, int]]:
    """Return name, port and target port of each port of the Service for callers.

    The port "serve" is the one by which KubeRay knows the Service. With TLS, the network policy opens it to the cluster
    only.
    """
    ports = description.ports
    secure = [("https", HTTPS, ports.https)] if description.tls else []
    return [("serve", ports.http, ports.http), *secure]


def _upgrade(description: LaunchDescription) -> Manifest:
    gateway = description.kubernetes.gateway
    if gateway is None:
        return {"type": "NewCluster"}
    return {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "gatewayClassName": gateway.class_name,
            "stepSizePercent": gateway.step_percent,
            "intervalSeconds": gateway.interval_s,
            "maxSurgePercent": gateway.surge_percent,
        },
    }


def _cluster(launch: Launch) -> Manifest:
    description = launch.description
    head = description.head
    cluster: dict[str, Any] = {
        "rayVersion": version("ray"),
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "upscalingMode": "Default",
            "idleTimeoutSeconds": IDLE_S,
            "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "1Gi"}},
        },
        "gcsFaultToleranceOptions": _redis(description),
        "headGroupSpec": {
            "labels": description.labels(head),
            "rayStartParams": start_parameters(launch, head, runs_stages=_runs_any(launch, head)),
            "template": pod_template(launch, head),
        },
        "workerGroupSpecs": [_workers(launch, group) for group in description.workers],
    }
    if description.token:
        cluster["authOptions"] = {"mode": "token"}
    return cluster


def _workers(launch: Launch, group: NodeGroupDescription) -> Manifest:
    least, start, most = group.bounds
    return {
        "groupName": group.name,
        "minReplicas": least,
        "replicas": start,
        "maxReplicas": most,
        "labels": launch.description.labels(group),
        "rayStartParams": start_parameters(launch, group, runs_stages=_runs_any(launch, group)),
        "template": pod_template(launch, group),
    }


def _redis(description: LaunchDescription) -> Manifest:
    settings = description.kubernetes.redis
    options: Manifest = {
        "backend": "redis",
        "redisAddress": settings.address or f"{redis_name(description)}:{REDIS_PORT}",
    }
    if settings.password:
        options["redisPassword"] = {"valueFrom": secret_reference(settings.password)}
    return options


def _runs(launch: Launch, group: NodeGroupDescription, stage: str) -> bool:
    return matches(place(launch)[stage], launch.description.labels(group))


def _runs_any(launch: Launch, group: NodeGroupDescription) -> bool:
    return any(_runs(launch, group, demand.stage) for demand in demands(launch.serve.application.args))
