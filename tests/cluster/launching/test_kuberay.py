"""Tests of the Kubernetes manifests: valid against the schemas of Kubernetes and KubeRay, and complete."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator, ValidationError

from cluster.description.launch_description import PROFILES
from cluster.haproxy import BINARY, CERTIFICATE, KEY, TLS_PORT
from tests.cluster.launching.rendering import PODS, find, launch, manifests, rendered

CRDS = os.environ.get("REJOINDER_CRDS", "")
"""Folder with KubeRay's CustomResourceDefinitions, as they are in the KubeRay repository."""
needs_crds = pytest.mark.skipif(not CRDS, reason="left out: REJOINDER_CRDS names no folder with KubeRay's CRDs")
CUSTOM = {"RayService", "ServiceMonitor", "ScrapeConfig"}
NAMES = sorted(PODS)


@cache
def crd(resource: str) -> Draft7Validator:
    """Return the validator of a KubeRay resource in version v1, which refuses fields that are not in the CRD."""
    text = (Path(CRDS) / f"ray.io_{resource}.yaml").read_text(encoding="utf-8")
    versions = yaml.load(text, Loader=yaml.CSafeLoader)["spec"]["versions"]
    (schema,) = [one["schema"]["openAPIV3Schema"] for one in versions if one["name"] == "v1"]
    return Draft7Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    """Return a CRD's schema in JSON schema: a number or text where Kubernetes allows both, and no other fields."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        strict["type"] = ["integer", "string"]
    preserves = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-embedded-resource")
    if isinstance(schema.get("properties"), dict) and not preserves:
        # `metadata` of the resource itself has no schema in a CRD.
        strict.setdefault("additionalProperties", False)
    return strict


@needs_crds
@pytest.mark.parametrize("name", NAMES)
def test_the_ray_service_is_valid_for_kuberay(name: str) -> None:
    """The RayService has only fields of KubeRay's schema, with the right types and all required ones."""
    crd("rayservices").validate(find(name, "RayService"))


@needs_crds
@pytest.mark.parametrize("name", NAMES)
def test_the_cluster_in_it_is_valid_too(name: str) -> None:
    """The RayCluster that KubeRay makes from the RayService is valid against the schema of that resource."""
    spec = find(name, "RayService")["spec"]["rayClusterConfig"]
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "voice-1"}, "spec": spec}
    crd("rayclusters").validate(cluster)


@needs_crds
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.rayClusterConfig.workerGroupSpecs.0.maxReplica", 3),
        ("spec.rayClusterConfig.workerGroupSpecs.0.minReplicas", "3"),
        ("spec.rayClusterConfig.gcsFaultToleranceOptions.backend", "etcd"),
        ("spec.upgradeStrategy.clusterUpgradeOptions", {"stepSizePercent": 10}),
        ("spec.rayClusterConfig.headGroupSpec.template.spec.containers.0.livenessProbe.httpget", {}),
    ],
)
def test_the_schema_finds_a_mistake(path: str, value: Any) -> None:
    """A misspelled field, a wrong type, an unknown value and a missing field are refused."""
    service = copy.deepcopy(find("gpu-cluster", "RayService"))
    place: Any = service
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part) if part.isdecimal() else part]
    place[last] = value
    with pytest.raises(ValidationError):
        crd("rayservices").validate(service)


@pytest.mark.parametrize("name", NAMES)
def test_the_other_objects_are_valid_for_kubernetes(name: str) -> None:
    """Every object of Kubernetes itself is valid against its schema, without unknown fields."""
    kinds = set()
    for manifest in manifests(name):
        if manifest["kind"] not in CUSTOM:
            kinds.add(manifest["kind"])
            kubernetes_validate.validate(manifest, "1.37", strict=True)
    assert {"Namespace", "NetworkPolicy", "PodDisruptionBudget"} <= kinds


@pytest.mark.parametrize("name", NAMES)
def test_the_kustomization_lists_every_file(name: str) -> None:
    """`kubectl apply -k` applies every rendered file. Every object but the namespace itself is in the namespace."""
    files = rendered(PODS[name], "kuberay")
    assert set(yaml.safe_load(files["kustomization.yaml"])["resources"]) == files.keys() - {"kustomization.yaml"}
    others = [one["metadata"] for one in manifests(name) if one["kind"] != "Namespace"]
    assert {one["namespace"] for one in others} == {"rejoinder"}


@pytest.mark.parametrize("name", NAMES)
def test_every_group_has_its_bounds_and_labels(name: str) -> None:
    """Each worker group has the minimum and maximum number of pods that the launch description gives it.

    Each stage's label selector matches the labels of at least one group. The head, on which no stage runs, gives Ray
    none of its CPUs.
    """
    cluster = find(name, "RayService")["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is True
    groups = launch(PODS[name]).description.workers
    assert [(one["minReplicas"], one["replicas"], one["maxReplicas"]) for one in cluster["workerGroupSpecs"]] == [
        group.bounds for group in groups
    ]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    args = yaml.safe_load(find(name, "RayService")["spec"]["serveConfigV2"])["applications"][0]["args"]
    for stage in ("host", "turn_detector", "stt", "llm", "tts"):
        selector = args[stage]["resources"]["label_selector"]
        assert any(selector.items() <= one["labels"].items() for one in cluster["workerGroupSpecs"]), stage


def test_the_served_application_is_the_profile() -> None:
    """The RayService embeds the profile's settings, and the import path that KubeRay needs."""
    config = yaml.safe_load(find("gpu-cluster", "RayService")["spec"]["serveConfigV2"])
    profile = yaml.safe_load((PROFILES / "gpu-cluster.yaml").read_text(encoding="utf-8"))
    application = config["applications"][0]
    assert application["import_path"] == "deployments.app:build"
    assert config["http_options"] == profile["http_options"]
    for section, settings in profile["applications"][0]["args"].items():
        assert settings.keys() <= application["args"][section].keys()


def test_upgrades_move_callers_by_the_gateway() -> None:
    """With a gateway upgrades are incremental, with its options; without one they replace the cluster at once."""
    assert find("gpu-cluster", "RayService")["spec"]["upgradeStrategy"] == {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "gatewayClassName": "istio",
            "stepSizePercent": 10,
            "intervalSeconds": 60,
            "maxSurgePercent": 100,
        },
    }
    assert find("cpu-cluster", "RayService")["spec"]["upgradeStrategy"] == {"type": "NewCluster"}


@pytest.mark.parametrize("name", NAMES)
def test_a_deleted_pod_outlives_its_longest_call(name: str) -> None:
    """A worker first drains, and has longer than the longest call; an old cluster remains as long after an upgrade."""
    service = find(name, "RayService")["spec"]
    longest = math.ceil(launch(PODS[name]).serve.application.args.host.session_max_s)
    assert service["rayClusterDeletionDelaySeconds"] >= longest
    for group in service["rayClusterConfig"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > longest
        (command,) = [one["lifecycle"]["preStop"]["exec"]["command"] for one in pod["containers"]]
        assert "ray drain-node" in command[-1]


@pytest.mark.parametrize("name", NAMES)
def test_every_node_has_probes_and_few_rights(name: str) -> None:
    """Each container with a Ray node has three probes, runs without root, and has its ports pinned."""
    for pod, container, parameters in _ray_containers(name):
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert (parameters["min-worker-port"], parameters["max-worker-port"]) == ("10002", "19999")
        assert {"name": "net.ipv4.ip_local_port_range", "value": "53000 60999"} in pod["securityContext"]["sysctls"]
        assert {"/dev/shm", "/models"} <= {mount["mountPath"] for mount in container["volumeMounts"]}


def _ray_containers(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, str]]]:
    """Yield the pod, container and `ray start` parameters of each group of a description in PODS."""
    cluster = find(name, "RayService")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        yield pod, pod["containers"][0], group["rayStartParams"]


def test_secrets_are_references() -> None:
    """Variables with secret values refer to Secrets. No rendered file has a Secret or Ray's token."""
    for _, container, _ in _ray_containers("gpu-cluster"):
        keys = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one}
        assert keys == {"REJOINDER_API_KEYS": {"name": "keys", "key": "api"}, "HF_TOKEN": {"name": "keys", "key": "hf"}}
    assert all(one["kind"] != "Secret" for name in NAMES for one in manifests(name))


def test_the_token_is_kuberay_s() -> None:
    """With Ray's authentication mode `token`, KubeRay makes the token, so the manifests set no variable with one."""
    assert find("gpu-cluster", "RayService")["spec"]["rayClusterConfig"]["authOptions"] == {"mode": "token"}
    assert "authOptions" not in find("cpu-cluster", "RayService")["spec"]["rayClusterConfig"]
    for _, container, _ in _ray_containers("gpu-cluster"):
        assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & {one["name"] for one in container["env"]}


def test_a_job_fills_the_volume_and_pods_wait_for_it() -> None:
    """The Job pulls the models that the profile needs, and vLLM's from the hub; pods wait for the file that it writes.

    Another list of models makes another Job, because a Job cannot be changed.
    """
    job = find("gpu-cluster", "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    script = container["command"][-1]
    assert "rejoinder models pull --directory /models silero-vad smart-turn-v3.2 whisper-base" in script
    assert "hf download Qwen/Qwen3-8B" in script
    marker = script.split("touch ")[1]
    (waiting,) = next(_ray_containers("gpu-cluster"))[0]["initContainers"]
    assert f"until [ -e {marker} ]" in waiting["command"][-1]
    assert [one["name"] for one in container["env"]] == ["HF_HOME", "HF_TOKEN"]
    other = {**PODS["gpu-cluster"], "models": {"claim": "models", "pull": ["silero-vad"]}}
    names = [one["metadata"]["name"] for one in yaml.safe_load_all(rendered(other, "kuberay")["models.yaml"])]
    assert job["metadata"]["name"] not in names


def test_a_folder_of_the_nodes_is_filled_by_each_pod() -> None:
    """With `host_path` there is no Job and no claim: the pods themselves fetch what their node lacks."""
    assert "models.yaml" not in rendered(PODS["cpu-cluster"], "kuberay")
    for pod, _, _ in _ray_containers("cpu-cluster"):
        (init,) = pod["initContainers"]
        assert init["command"][-1].startswith("rejoinder models pull --directory /models ")
        assert {"name": "models", "hostPath": {"path": "/srv/models", "type": "Directory"}} in pod["volumes"]


def test_the_head_s_state_is_in_redis() -> None:
    """The head uses the deployed Redis or the named one, with the password from its Secret."""
    own = find("gpu-cluster", "RayService")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    password = {"valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}}
    assert own == {"backend": "redis", "redisAddress": "voice-redis:6379", "redisPassword": password}
    assert find("gpu-cluster", "Service", "voice-redis")["spec"]["ports"][0]["port"] == 6379
    named = find("cpu-cluster", "RayService")["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    assert named["redisAddress"] == "redis.data:6379"
    assert all(one["kind"] != "StatefulSet" for one in manifests("cpu-cluster"))


def test_only_nodes_reach_ray_s_ports() -> None:
    """The network policy opens the port for calls to callers. Everything else is for nodes, KubeRay and Prometheus.

    Prometheus reaches the range of ports from which the metrics ports of replicas are taken.
    """
    policy = find("gpu-cluster", "NetworkPolicy", "voice-nodes")["spec"]
    nodes, callers, operator, prometheus = policy["ingress"]
    assert nodes == {"from": [{"podSelector": policy["podSelector"]}]}
    assert callers["ports"] == [{"protocol": "TCP", "port": 8443}]
    assert {"ipBlock": {"cidr": "0.0.0.0/0"}} in callers["from"]
    assert {8265, 8000} <= {port["port"] for port in operator["ports"]}
    assert {"protocol": "TCP", "port": 53000, "endPort": 60999} in prometheus["ports"]
    assert len(find("cpu-cluster", "NetworkPolicy", "small-nodes")["spec"]["ingress"]) == 3


def test_prometheus_finds_ray_and_the_replicas() -> None:
    """The ServiceMonitor selects the metrics Service. The replicas' ports come from the server's list, with a key."""
    service = find("gpu-cluster", "Service", "voice-metrics")
    monitor = find("gpu-cluster", "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert {one["port"] for one in monitor["endpoints"]} == {port["name"] for port in service["spec"]["ports"]}
    (source,) = find("gpu-cluster", "ScrapeConfig")["spec"]["httpSDConfigs"]
    assert source["url"] == "http://voice-serve-svc.rejoinder:8000/metrics/targets"
    assert source["authorization"] == {"type": "Bearer", "credentials": {"name": "keys", "key": "metrics"}}


def test_the_selectors_of_services_and_budgets_meet_pods() -> None:
    """Every selector of a Service, budget or policy for Ray nodes matches the labels of their pods."""
    cluster = find("hosted-llm", "RayService")["spec"]["rayClusterConfig"]
    groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    pods = [group["template"]["metadata"]["labels"] for group in groups]
    for group in ("calls", "speech"):
        selector = find("hosted-llm", "PodDisruptionBudget", f"hosted-{group}")["spec"]["selector"]["matchLabels"]
        assert [selector.items() <= labels.items() for labels in pods].count(True) == 1
    everyone = find("hosted-llm", "Service", "hosted-metrics")["spec"]["selector"]
    assert all(everyone.items() <= labels.items() for labels in pods)


def test_callers_get_tls_and_nothing_else() -> None:
    """With `tls`, pods mount the Secret, HAProxy reads it, and callers reach only the port with TLS.

    Without it, callers reach the plain port.
    """
    service = find("gpu-cluster", "RayService")["spec"]
    ports = {port["name"]: (port["port"], port["targetPort"]) for port in service["serveService"]["spec"]["ports"]}
    assert ports == {"serve": (8000, 8000), "https": (443, 8443)}
    for group in (service["rayClusterConfig"]["headGroupSpec"], *service["rayClusterConfig"]["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volume = next(one for one in pod["volumes"] if one["name"] == "tls")
        assert volume["secret"]["secretName"] == "voice-tls"
        (container,) = pod["containers"]
        mount = next(one for one in container["volumeMounts"] if one["name"] == "tls")
        variables = {one["name"]: one.get("value") for one in container["env"]}
        assert variables[CERTIFICATE] == f"{mount['mountPath']}/tls.crt"
        assert variables[KEY] == f"{mount['mountPath']}/tls.key"
        assert variables[TLS_PORT] == "8443"
        assert variables[BINARY] == "/opt/rejoinder/bin/rejoinder-haproxy"
    plain = find("hosted-llm", "NetworkPolicy", "hosted-nodes")["spec"]["ingress"][1]
    assert plain["ports"] == [{"protocol": "TCP", "port": 8000}]
