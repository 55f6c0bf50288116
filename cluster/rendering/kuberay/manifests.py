"""All manifests of a cluster for KubeRay, as files of a kustomization."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.description.launch_description import Launch
from cluster.rendering.kuberay.model_files import model_manifests
from cluster.rendering.kuberay.network import disruption_budgets, monitoring, network_policies
from cluster.rendering.kuberay.objects import Manifest, cluster_labels
from cluster.rendering.kuberay.ray_service import ray_service
from cluster.rendering.kuberay.redis import redis_manifests
from cluster.rendering.rendered_file import MARK, RenderedFile, yaml_file


def render_kuberay(launch: Launch) -> Iterator[RenderedFile]:
    """Yield the manifests for the target `kuberay`, and the `kustomization.yaml` that lists them.

    Raises:
        ConfigError: A stage cannot be placed.
    """
    description = launch.description
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": description.kubernetes.namespace, "labels": cluster_labels(description)},
    }
    files: dict[str, list[Manifest]] = {
        "namespace.yaml": [namespace],
        "models.yaml": list(model_manifests(launch)),
        "redis.yaml": list(redis_manifests(description)),
        "network-policies.yaml": list(network_policies(description)),
        "disruption-budgets.yaml": list(disruption_budgets(description)),
        "monitoring.yaml": list(monitoring(description)),
        "ray-service.yaml": [ray_service(launch)],
    }
    present = {name: manifests for name, manifests in files.items() if manifests}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(present),
    }
    yield yaml_file("kustomization.yaml", [kustomization], f"{MARK}. Apply: kubectl apply -k .")
    for name, manifests in present.items():
        yield yaml_file(name, manifests, f"{MARK}.")
