"""The TCP ports of a node, each pinned to a number or range, so that a firewall can list them.

Ray takes most of its ports at random unless it is told otherwise. The gRPC servers of Ray Serve's replicas cannot be
pinned: they use the kernel's ephemeral range, which `ephemeral` limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_serializer, model_validator

from rejoinder.core.settings.section import Section

Port = Annotated[int, Field(ge=1, le=65535)]


class PortRange(Section):
    """A range of TCP ports, both ends included. In the file it is written as `first-last`."""

    first: Port
    """First port of the range."""
    last: Port
    """Last port of the range."""

    @model_validator(mode="after")
    def _ordered(self) -> PortRange:
        if self.last < self.first:
            raise ValueError(f"the range {self} ends before it begins. Swap the numbers")
        return self

    @model_serializer
    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __len__(self) -> int:
        return self.last - self.first + 1


def _range(value: Any) -> Any:
    if isinstance(value, PortRange | dict):
        return value
    match = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a range of ports. Write it as first-last, such as 10002-19999")
    return {"first": int(match[1]), "last": int(match[2])}


Ports = Annotated[PortRange, BeforeValidator(_range)]

LEAST_WORKERS = 100
"""Fewest ports for Ray's worker processes. A node has a worker for each replica, and one for each core at the start."""


class PortPlan(Section):
    """Ports of every node. They may not overlap, because a node may have all of them."""

    gcs: Port = 6379
    """Head: Ray's Global Control Service, to which the other nodes connect."""
    dashboard: Port = 8265
    """Head: Ray's dashboard and its REST API."""
    client: Port = 10001
    """Head: Ray Client."""
    http: Port = 8000
    """Every node: HAProxy, which callers connect to. It must be `http_options.port` of the serve profile."""
    https: Port = 8443
    """Every node: HAProxy with TLS, if the description has `tls`. Callers then use this port only."""
    node_manager: Port = 6380
    """Every node: Ray's node manager."""
    object_manager: Port = 6381
    """Every node: Ray's object manager."""
    runtime_env_agent: Port = 6382
    """Every node: Ray's runtime environment agent."""
    dashboard_agent: Port = 52365
    """Every node: HTTP server of Ray's dashboard agent."""
    dashboard_agent_grpc: Port = 6384
    """Every node: gRPC server of Ray's dashboard agent."""
    metrics: Port = 8080
    """Every node: Prometheus metrics of Ray."""
    autoscaler_metrics: Port = 44217
    """Head: Prometheus metrics of Ray's autoscaler."""
    dashboard_metrics: Port = 44227
    """Head: Prometheus metrics of Ray's dashboard."""
    fallback_http: Port = 8500
    """Every node: Serve's Python proxy, to which HAProxy falls back while a node has no host."""
    fallback_grpc: Port = 9500
    """Every node: Serve's Python proxy for gRPC."""
    haproxy_metrics: Port = 9101
    """Every node: Prometheus metrics of HAProxy."""
    workers: Ports = PortRange(first=10002, last=19999)
    """Every node: Ray's worker processes."""
    replicas_http: Ports = PortRange(first=30000, last=31000)
    """Every node: the HTTP servers of Serve's replicas, to which HAProxy connects."""
    replicas_grpc: Ports = PortRange(first=40000, last=41000)
    """Every node: the gRPC ingress servers of Serve's replicas."""
    ephemeral: Ports = PortRange(first=53000, last=60999)
    """Every node: the kernel's ephemeral ports (`net.ipv4.ip_local_port_range`). Serve's calls between replicas and the
    metrics of session hosts listen on ports of this range.
    """

    @model_validator(mode="after")
    def _disjoint(self) -> PortPlan:
        for (one, first), (other, second) in combinations(self.ranges(), 2):
            if first.first <= second.last and second.first <= first.last:
                raise ValueError(f"{one} ({_text(first)}) and {other} ({_text(second)}) overlap. Move one of them")
        if len(self.workers) < LEAST_WORKERS:
            raise ValueError(f"workers has {len(self.workers)} ports. Give it at least {LEAST_WORKERS}")
        return self

    def ranges(self) -> Iterator[tuple[str, PortRange]]:
        """Yield the name and range of each setting; a single port is a range of one."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            yield name, value if isinstance(value, PortRange) else PortRange(first=value, last=value)


def _text(ports: PortRange) -> str:
    return str(ports.first) if len(ports) == 1 else str(ports)
