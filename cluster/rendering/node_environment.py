"""Environment variables of a launched node, and the folders that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from cluster.description.groups import NodeGroupDescription
from cluster.description.launch_description import LaunchDescription
from cluster.description.targets import TlsFilesOnNodes
from cluster.environment import ADVISED, HAPROXY_SCRIPT, MAX_CONNECTIONS, REQUIRED
from cluster.haproxy import BINARY, CERTIFICATE, KEY, METRICS_HOST, TLS_PORT

MOST_HAPROXY_THREADS = 64
"""HAProxy's own limit for one group of threads."""
OPEN_FILES = 65536
"""Open files that a node's processes are allowed. HAProxy needs 2.5 for each of MAX_CONNECTIONS."""


def launched_environment(
    description: LaunchDescription, group: NodeGroupDescription, haproxy: PurePosixPath, *, environment: PurePosixPath
) -> dict[str, str]:
    """Return the environment variables of Ray's processes on a node, by name, without the secret ones.

    Args:
        description: The launch description.
        group: Group of the node. Its own variables replace those of the description, and both replace the others.
        haproxy: Folder for the files of the node's HAProxy.
        environment: The node's virtual environment, whose program starts HAProxy.
    """
    return {
        **REQUIRED,
        **ADVISED,
        "RAY_SERVE_HAPROXY_MAXCONN": str(MAX_CONNECTIONS),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(group.cpus, MOST_HAPROXY_THREADS)),
        **_haproxy_files(haproxy),
        **_port_variables(description),
        BINARY: str(environment / "bin" / HAPROXY_SCRIPT),
        METRICS_HOST: "*",
        **(_tls_variables(description, description.tls) if description.tls else {}),
        **_model_variables(description.models.mount),
        **({"RAY_AUTH_MODE": "token"} if description.token else {}),
        **description.environment,
        **group.environment,
    }


def _haproxy_files(folder: PurePosixPath) -> Mapping[str, str]:
    # Serve puts a folder named after the node's id, 56 characters, before the last part of each path. HAProxy allows
    # 97 characters for a socket, so the names are short.
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m.sock"),
    }


def _port_variables(description: LaunchDescription) -> Mapping[str, str]:
    ports = description.ports
    return {
        "AUTOSCALER_METRIC_PORT": str(ports.autoscaler_metrics),
        "DASHBOARD_METRIC_PORT": str(ports.dashboard_metrics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.haproxy_metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.replicas_http.first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.replicas_http.last),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(ports.replicas_grpc.first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(ports.replicas_grpc.last),
    }


def _tls_variables(description: LaunchDescription, tls: TlsFilesOnNodes) -> Mapping[str, str]:
    return {CERTIFICATE: tls.certificate, KEY: tls.key, TLS_PORT: str(description.ports.https)}


def _model_variables(mount: str) -> Mapping[str, str]:
    # The model store's own folder is set in the rendered serve profile (`models.directory`).
    return {"HF_HOME": f"{mount}/huggingface"}
