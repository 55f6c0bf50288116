"""Who may connect to the pods, how many may be missing at once, and what Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.description.launch_description import LaunchDescription
from cluster.rendering.kuberay.objects import GROUP, Manifest, manifest, node_pod_labels, policy_port
from cluster.rendering.kuberay.redis import REDIS_PORT, redis_labels

NAMESPACE = "kubernetes.io/metadata.name"
"""Label that Kubernetes puts on every namespace: its name."""
GATEWAY = "gateway.networking.k8s.io/gateway-name"
"""Label of the pods of a gateway, set by implementations of the Gateway API that run it in the namespace."""
SCRAPE_INTERVAL = "5s"


def network_policies(description: LaunchDescription) -> Iterator[Manifest]:
    """Yield the policies for incoming connections: of the Ray nodes, and of Redis if the launch kit deploys it."""
    ports, settings = description.ports, description.kubernetes
    nodes = {"podSelector": {"matchLabels": node_pod_labels(description)}}
    policy = manifest("NetworkPolicy", "networking.k8s.io/v1", f"{description.name}-nodes", description)
    callers: list[Manifest] = [{"ipBlock": {"cidr": network}} for network in settings.callers]
    callers.append({"podSelector": {"matchExpressions": [{"key": GATEWAY, "operator": "Exists"}]}})
    ingress: list[Manifest] = [
        # Ray's own ports: only between the nodes, because whoever reaches them can run code.
        {"from": [nodes]},
        {"from": callers, "ports": [policy_port(ports.https if description.tls else ports.http)]},
        {
            "from": [_namespace(settings.operator_namespace)],
            "ports": [policy_port(port) for port in (ports.gcs, ports.dashboard, ports.dashboard_agent, ports.http)],
        },
    ]
    if settings.monitoring_namespace:
        # The replicas' own metrics ports, which /metrics/targets lists, are ephemeral ones.
        numbers = (ports.metrics, ports.haproxy_metrics, ports.http)
        scraped = [*map(policy_port, numbers), policy_port(ports.ephemeral)]
        ingress.append({"from": [_namespace(settings.monitoring_namespace)], "ports": scraped})
    policy["spec"] = {"podSelector": nodes["podSelector"], "policyTypes": ["Ingress"], "ingress": ingress}
    yield policy
    if not settings.redis.address:
        redis = manifest("NetworkPolicy", "networking.k8s.io/v1", f"{description.name}-redis", description)
        redis["spec"] = {
            "podSelector": {"matchLabels": redis_labels(description)},
            "policyTypes": ["Ingress"],
            # KubeRay's own Job, which deletes the state of a removed cluster, has no label of ours.
            "ingress": [{"from": [{"podSelector": {}}], "ports": [policy_port(REDIS_PORT)]}],
        }
        yield redis


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE: name}}}


def disruption_budgets(description: LaunchDescription) -> Iterator[Manifest]:
    """Yield a budget for each group of workers: maintenance of Kubernetes evicts one pod of a group at a time."""
    for group in description.workers:
        budget = manifest("PodDisruptionBudget", "policy/v1", f"{description.name}-{group.name}", description)
        labels = {**node_pod_labels(description), GROUP: group.name}
        # A pod that accepts no calls, and so is not ready, may always be evicted.
        budget["spec"] = {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }
        yield budget


def monitoring(description: LaunchDescription) -> Iterator[Manifest]:
    """Yield a Service for the metrics of Ray and HAProxy with its ServiceMonitor, and a ScrapeConfig for the replicas.

    A replica's metrics port is not known before it starts, so Prometheus asks the server for the list.
    """
    settings, ports = description.kubernetes, description.ports
    if not settings.monitoring_namespace:
        return
    service = manifest("Service", "v1", f"{description.name}-metrics", description)
    service["metadata"]["labels"]["app.kubernetes.io/component"] = "metrics"
    service["spec"] = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": node_pod_labels(description),
        "ports": [
            {"name": "ray", "port": ports.metrics, "targetPort": ports.metrics},
            {"name": "haproxy", "port": ports.haproxy_metrics, "targetPort": ports.haproxy_metrics},
        ],
    }
    yield service
    monitor = manifest("ServiceMonitor", "monitoring.coreos.com/v1", description.name, description)
    monitor["metadata"]["labels"] |= settings.monitoring_labels
    monitor["spec"] = {
        "selector": {"matchLabels": dict(service["metadata"]["labels"])},
        "namespaceSelector": {"matchNames": [settings.namespace]},
        "endpoints": [{"port": name, "path": "/metrics", "interval": "15s"} for name in ("ray", "haproxy")],
    }
    yield monitor
    scrape = manifest("ScrapeConfig", "monitoring.coreos.com/v1alpha1", f"{description.name}-replicas", description)
    scrape["metadata"]["labels"] |= settings.monitoring_labels
    url = f"http://{description.name}-serve-svc.{settings.namespace}:{ports.http}/metrics/targets"
    source: Manifest = {"url": url, "refreshInterval": "15s"}
    if settings.monitoring_key:
        source["authorization"] = {"type": "Bearer", "credentials": settings.monitoring_key.model_dump()}
    scrape["spec"] = {"httpSDConfigs": [source], "scrapeInterval": SCRAPE_INTERVAL}
    yield scrape
