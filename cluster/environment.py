"""What Ray's processes must find in their environment, on every node, before Ray is imported or started.

Ray Serve reads these at import, so setting them later does nothing. `rejoinder serve` sets them for its own head; on
a cluster of one's own they go in front of `ray start` (`rejoinder doctor --environment` prints them).
Sources: reference facts on Ray Serve 2.60 (ray-facts sections 2, 5 and 12).
"""

from __future__ import annotations

import contextlib
import itertools
import random
import resource
import socket
from pathlib import Path

REQUIRED = {
    # Handles over gRPC in the caller's own loop: a stream item costs a third of the CPU and a quarter of the time.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Audio never passes Serve's Python proxy, which saturates at a few dozen conversations.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
}
"""Without these a cluster cannot hold conversations at the promised latency; joining refuses one that lacks them."""

ADVISED = {
    # Every replica added or removed reloads HAProxy, and the old worker cuts its sockets after this long.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "7200",
    # A busy replica misses Serve's 0.1 s for a queue probe, and the router then backs off: pure tail latency.
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "0.5",
    # Ray's workers run at nice 15: on a shared machine anything else, even the load generator, goes before a caller.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


ALONE = {
    # Serve gives load balancers outside the cluster 30 s to forget a host that stops. A machine of its own has none
    # but HAProxy, which Serve itself tells at once.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
}
"""For a cluster that one machine serves by itself."""

MAX_CONNECTIONS = 20_000
# HAProxy wants two descriptors a connection and half as many again for itself, and refuses to start without them.
FILES_PER_CONNECTION = 2.5
SPARE_FILES = 1000

KERNELS_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Above those that Ray's workers take by default (10002 to 19999), and below Serve's for replicas (30000 to 31000).
NAMED_PORTS = range(20_000, 30_000)
PORT_TRIES = 100
# Each process begins somewhere else, and takes none twice.
_turns = itertools.count(random.SystemRandom().randrange(len(NAMED_PORTS)))


def max_connections() -> int:
    """The connections HAProxy may hold on this machine: as many as its limit on file descriptors allows."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(100, min(MAX_CONNECTIONS, int((limit - SPARE_FILES) / FILES_PER_CONNECTION)))


def advised() -> dict[str, str]:
    """ADVISED, and what depends on this machine."""
    return {**ADVISED, "RAY_SERVE_HAPROXY_MAXCONN": str(max_connections())}


def free_port() -> int:
    """A TCP port that is free on loopback now, and that the kernel gives to nobody who does not name it: a process that
    starts later still finds it free, whatever connections are made meanwhile.
    """
    if first_kernel_port() >= NAMED_PORTS.stop:
        for turn in itertools.islice(_turns, PORT_TRIES):
            port = NAMED_PORTS[turn % len(NAMED_PORTS)]
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def first_kernel_port() -> int:
    """From here on the kernel takes ports for who does not care which."""
    try:
        return int(KERNELS_PORTS.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):  # no such kernel: Linux's own default
        return 32768


def node_environment(directory: Path) -> dict[str, str]:
    """The environment of one node whose files lie in `directory`, beside other nodes and clusters of this machine."""
    haproxy = directory / "haproxy"
    return {
        **REQUIRED,
        **advised(),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
    }
