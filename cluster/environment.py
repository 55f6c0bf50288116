"""Environment variables that Ray's processes need on every node, and free TCP ports.

Ray Serve 2.60 reads the variables when it is imported, so they must be set before. `rejoinder serve` sets them for its
own head. On another cluster, set them for the command `ray start`; `rejoinder doctor --environment` prints them.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import resource
import socket
import sys
from pathlib import Path

from cluster.haproxy import BINARY, LAUNCHER, TRUSTED
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings

HAPROXY_SCRIPT = "rejoinder-haproxy"
"""Program of `cluster.haproxy` in the folder of the installed commands."""

REQUIRED = {
    # Handles use gRPC in the caller's own event loop: a stream item takes a third of the CPU and a quarter of the time.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # HAProxy carries the audio. Serve's Python proxy saturates at a few dozen conversations.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
}
"""Variables that conversations at the documented latency require. A cluster without them is refused."""

REDISPATCH = {
    # A host that is full answers a handshake with 503. HAProxy then sends the handshake to another host.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure 503",
    # Hosts that are tried after the first one. With up to eight hosts, a caller is refused only if all hosts are full.
    "RAY_SERVE_HAPROXY_RETRIES": "7",
    # A retry of Ray's default, "leastconn", avoids only the host that has just refused. So it alternates between the
    # two hosts with the fewest connections of this HAProxy and never reaches the others. "roundrobin" reaches all.
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "roundrobin",
}
"""Variables with which HAProxy sends a handshake that a full host refuses to another host."""

ADVISED = {
    **REDISPATCH,
    # Each added or removed replica reloads HAProxy. The old worker closes its sockets after this time.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "7200",
    # If a node vanishes without closing its connections, HAProxy gives a new call to another host after this time. The
    # default is 5 s, which callers do not wait for.
    "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "1",
    # HAProxy checks each host this often. A host that does not answer twice gets no new calls. The default is 5 s.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
    # Serve checks HAProxy this often, and replaces it after three failed checks in a row. With the default of 10 s a
    # killed HAProxy is away for half a minute. A busy HAProxy has 10 s for each answer all the same.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",
    # A client that sends nothing for this long, not even the pong to a ping, is disconnected. Without it, a connection
    # that never sends a whole request stays open for an hour. Hosts ping each call every 5 s.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    # A busy replica misses the default of 0.1 s for a queue probe. The router then backs off, which adds tail latency.
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "0.5",
    # By default Ray's workers run at nice 15, so on a shared machine every other process goes first.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables that are recommended, but not checked."""

SINGLE_MACHINE = {
    # By default a host that stops drains for 30 s, until load balancers outside the cluster have removed it. On a
    # single machine there is only HAProxy, which Serve notifies at once.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
}
"""Additional variables for a cluster of one machine."""

MAX_CONNECTIONS = 20_000
MIN_CONNECTIONS = 100
# File descriptors that HAProxy needs for each connection: two, and a share for itself. Without them it does not start.
FILES_PER_CONNECTION = 2.5
SPARE_FILES = 1000

EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Above the default ports of Ray's workers (10002 to 19999) and below those of Serve's replicas (30000 to 31000).
CANDIDATE_PORTS = range(20_000, 30_000)
PORT_TRIES = 100
# Each process starts at a random port of CANDIDATE_PORTS and continues upwards, so that it uses no port twice.
_offsets = itertools.count(random.SystemRandom().randrange(len(CANDIDATE_PORTS)))


def max_connections() -> int:
    """Return the number of connections that HAProxy may hold, from this machine's limit on file descriptors."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, int((limit - SPARE_FILES) / FILES_PER_CONNECTION)))


def check_open_files(field: str) -> None:
    """Raise ConfigError if this process may open too few files for Ray and HAProxy. `field` is what the error names."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = int(SPARE_FILES + MIN_CONNECTIONS * FILES_PER_CONNECTION)
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise ConfigError(
            f"only {limit} files may be open at once, and Ray and HAProxy need {needed}.",
            "Raise the hard limit, for example with `ulimit -Hn 65536` as root.",
            field=field,
        )


def advised() -> dict[str, str]:
    """Return the recommended environment variables by name.

    They are ADVISED, HAProxy's maximum of connections here and, if it is installed, the program that starts HAProxy
    with a safe configuration (`cluster.haproxy`).
    """
    script = Path(sys.executable).parent / HAPROXY_SCRIPT
    launcher = {BINARY: str(script)} if script.exists() else {}
    return {**ADVISED, "RAY_SERVE_HAPROXY_MAXCONN": str(max_connections()), **launcher}


def free_port() -> int:
    """Return a TCP port that is free on loopback.

    The port is outside the kernel's ephemeral range, if possible. So no outgoing connection takes it before the process
    that gets it starts to listen.
    """
    if first_ephemeral_port() >= CANDIDATE_PORTS.stop:
        for offset in itertools.islice(_offsets, PORT_TRIES):
            port = CANDIDATE_PORTS[offset % len(CANDIDATE_PORTS)]
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def first_ephemeral_port() -> int:
    """Return the first port of the kernel's ephemeral range, from which it assigns ports to outgoing connections."""
    try:
        return int(EPHEMERAL_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):  # not Linux: assume Linux's default
        return 32768


def entry_variables(settings: Settings) -> dict[str, str]:
    """Return the variables by which a node's HAProxy gets what the settings say about callers: TLS and load balancers.

    Without such settings there are none.
    """
    trusted = settings.access.trusted_proxies
    return settings.tls.variables() | ({TRUSTED: ",".join(trusted)} if trusted else {})


def node_environment(directory: Path) -> dict[str, str]:
    """Return the environment variables of one node by name.

    They are the required and recommended ones, and those with HAProxy's paths and ports. The paths are in `directory`
    and the ports are free, so several nodes and clusters can run on this machine.

    Before the node starts, `write_launcher` must write the program that starts HAProxy.

    Args:
        directory: Folder for the files of the node's HAProxy.
    """
    haproxy = directory / "haproxy"
    return {
        **REQUIRED,
        **advised(),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        BINARY: str(directory / LAUNCHER),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
    }


def own_head_environment(directory: Path, hosts: int) -> dict[str, str]:
    """Return the environment variables of a cluster of this machine alone, by name.

    Args:
        directory: Folder for the files of HAProxy.
        hosts: Maximum number of session hosts. A single one would get every handshake that it refuses again, so
            REDISPATCH is left out.
    """
    unused = REDISPATCH.keys() if hosts == 1 else ()
    environment = node_environment(directory) | SINGLE_MACHINE
    return {name: value for name, value in environment.items() if name not in unused}
