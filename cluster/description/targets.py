"""Sections of a launch description that belong to one kind of target: machines (ray-up and bare) or Kubernetes."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from cluster.description.addresses import DnsLabel, HostAddress, ObjectName, VariableName
from cluster.description.ports import Port
from rejoinder.core.settings.section import Count, Section

AbsolutePath = Annotated[str, StringConstraints(pattern=r"^(/[\w.@-]+)+$", max_length=200)]
"""Path from the root, without spaces, quotes and the characters that shells and systemd interpret."""
ShortPath = Annotated[str, StringConstraints(pattern=r"^(/[\w.@-]+)+$", max_length=25)]
"""AbsolutePath of at most 25 characters."""


class SecretKey(Section):
    """Place of a secret in Kubernetes."""

    name: ObjectName
    """Name of the Secret, which must exist in the namespace."""
    key: str = Field(min_length=1)
    """Key in the Secret."""


class SecretVariable(Section):
    """An environment variable of the nodes whose value is secret. The value is never part of the description."""

    variable: VariableName
    """Name of the environment variable, such as REJOINDER_API_KEYS. `launch up` passes on the value that it has in its
    own environment; otherwise you write it to `machines.secrets_file` of each machine.
    """
    kubernetes: SecretKey | None = None
    """Secret with the value. Kubernetes only, where it is required."""


class TlsFilesOnNodes(Section):
    """The certificate with which every node's HAProxy speaks TLS at `ports.https`. `ports.http` stays in plaintext."""

    certificate: AbsolutePath = "/etc/rejoinder/tls/tls.crt"
    """PEM file with the certificate and its chain. In pods it is there if `secret` is mounted."""
    key: AbsolutePath = "/etc/rejoinder/tls/tls.key"
    """PEM file with the private key, readable for `ssh_user` only."""
    secret: ObjectName | None = None
    """Secret of the type kubernetes.io/tls, for example of cert-manager. Kubernetes only, where it is required."""


class MachineSettings(Section):
    """Machines that you reach over SSH, for the targets `ray-up` and `bare`."""

    ssh_user: str = Field("ray", pattern=r"^[a-z_][a-z0-9_-]*$")
    """User on every machine. Ray's processes run as this user."""
    ssh_private_key: str = "~/.ssh/id_ed25519"
    """Private key file on the machine that runs `rejoinder launch`. With `ray-up` it is copied to the head, which uses
    it to start the other machines, so take a key that opens these machines only.
    """
    ssh_port: Port = 22
    """Port of every machine's SSH server."""
    checkout: AbsolutePath = "/opt/rejoinder"
    """Folder of the checkout on every machine."""
    virtualenv: AbsolutePath = "/opt/rejoinder/.venv"
    """Virtual environment on every machine. Its Python runs Ray and the replicas."""
    state: ShortPath = "/var/lib/rejoinder"
    """Folder for the files of Ray and HAProxy on every machine. HAProxy creates sockets in it, whose paths may have at
    most 97 characters, of which 72 are the names inside of the folder.
    """
    secrets_file: AbsolutePath = "/etc/rejoinder/secrets.env"
    """File on every machine with the values of `secrets`, one NAME=value a line, readable for `ssh_user` only."""
    object_store_mb: int = Field(200, ge=80)
    """Size of Ray's object store on every machine, in MiB. Rejoinder's own messages do not use it."""
    external_head: HostAddress | None = None
    """Address at which this machine reaches the head, if it differs from the head's address in the cluster."""


class RedisSettings(Section):
    """Redis in which Ray's head keeps its state, so that calls survive a restart of the head."""

    address: str = ""
    """HOST:PORT of a Redis with persistent storage. Empty: the launch kit deploys one with a volume."""
    password: SecretKey | None = None
    """Secret with the password. Required for a Redis of your own that has one; without it, Redis is open to the pods
    that the network policy admits.
    """
    storage_gb: Count = 1
    """Size of the volume of the Redis that the launch kit deploys, in GiB."""
    image: str = "redis:7.4-alpine"
    """Image of the Redis that the launch kit deploys."""


class GatewaySettings(Section):
    """Gateway that moves callers to the new cluster, step by step, during an upgrade."""

    class_name: DnsLabel = "istio"
    """GatewayClass of the cluster's implementation of the Gateway API."""
    step_percent: int = Field(10, ge=1, le=100)
    """Share of new calls that moves to the new cluster in each step, in percent."""
    interval_s: Count = 60
    """Seconds between two steps."""
    surge_percent: int = Field(100, ge=1, le=100)
    """Capacity that is moved to the new cluster at once, in percent. 100 needs twice the nodes during an upgrade."""


class KubernetesSettings(Section):
    """Kubernetes with KubeRay, for the target `kuberay`."""

    namespace: DnsLabel = "rejoinder"
    """Namespace of all objects."""
    redis: RedisSettings = RedisSettings()
    """Where Ray's head keeps its state."""
    gateway: GatewaySettings | None = None
    """Set: upgrades move callers gradually (`NewClusterWithIncrementalUpgrade`), which needs a Gateway API
    implementation and the KubeRay feature gate RayServiceIncrementalUpgrade. None: at once, when the new cluster is
    ready (`NewCluster`). In both cases the calls of the old cluster continue until `drain_s` has passed.
    """
    drain_s: Count = 7200
    """Seconds for which the old cluster remains after an upgrade, so that its calls can end."""
    service_type: str = Field("LoadBalancer", pattern=r"^(LoadBalancer|NodePort|ClusterIP)$")
    """Type of the Service for callers."""
    service_annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the Service for callers, for example those of a cloud's load balancer."""
    callers: tuple[str, ...] = ("0.0.0.0/0",)
    """Networks from which calls are accepted, in CIDR notation, for the network policy."""
    operator_namespace: DnsLabel = "kuberay-operator"
    """Namespace of the KubeRay operator, which may reach the head's dashboard."""
    monitoring_namespace: DnsLabel | None = "monitoring"
    """Namespace of Prometheus, which may reach the metrics ports. None: no objects of the Prometheus operator."""
    monitoring_labels: dict[str, str] = Field(default_factory=lambda: {"release": "prometheus"})
    """Labels of the ServiceMonitors, by which Prometheus selects them."""
    monitoring_key: SecretKey | None = None
    """Secret with an API key of the scope `metrics`, with which Prometheus asks a host for the replicas. Required if
    the hosts have keys and `monitoring_namespace` is set.
    """
    image_pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets with the credentials of the image registry."""

    @field_validator("callers")
    @classmethod
    def _networks(cls, callers: tuple[str, ...]) -> tuple[str, ...]:
        for text in callers:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"{text!r} is not a network ({error}). Write it as 10.0.0.0/8") from None
        return callers


class ModelVolume(Section):
    """Where the nodes find model files: the model store, and the Hugging Face cache in its folder `huggingface`.

    Kubernetes uses `claim` or `host_path`. Machines use `mount`, which is a local folder or a shared file system.
    """

    claim: ObjectName | None = None
    """PersistentVolumeClaim for the files, which the launch kit creates. Kubernetes only."""
    host_path: AbsolutePath | None = None
    """Folder of each Kubernetes node with the files, instead of a claim. It must exist and belong to user 1000, because
    pods run as this user. Each pod fetches what is missing.
    """
    mount: AbsolutePath = "/models"
    """Folder of the files on every node."""
    storage_gb: Count = 50
    """Size of the claim in GiB."""
    storage_class: str = ""
    """StorageClass of the claim, which must support ReadWriteMany if there is more than one node. Empty: the default.
    """
    access_mode: str = Field("ReadWriteMany", pattern=r"^ReadWrite(Many|Once)$")
    """Access mode of the claim. ReadWriteOnce needs all pods on one Kubernetes node."""
    pull: tuple[str, ...] = ()
    """Models of the store to fetch with `rejoinder models pull`. Empty: those that the serve profile needs."""

    @model_validator(mode="after")
    def _one_place(self) -> ModelVolume:
        if self.claim and self.host_path:
            raise ValueError("claim and host_path exclude each other. Remove one of them")
        return self


class Images(Section):
    """Container images. Kubernetes only."""

    cpu: str = ""
    """Image of the nodes without GPUs, with a tag or digest, built from `cluster/images/cpu.Dockerfile`."""
    gpu: str = ""
    """Image of the nodes with GPUs, with a tag or digest, built from `cluster/images/gpu.Dockerfile`."""
