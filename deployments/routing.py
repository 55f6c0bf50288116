"""Which replica gets a call: two random choices by queue length, but never one that the caller asks to avoid.

Serve's own router gives no anti-affinity, and a hedge sent to the replica that stalls buys nothing. This one reads
the
`Route` that travels as the second argument of every stage call, and remembers where each request went, so that the
caller knows whom to avoid next even if that replica never answers. The router runs in the caller's process.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, ReplicaResult, RequestRouter, RunningReplica

# Placements are read within milliseconds of the call; the bound only guards against callers that never ask.
REMEMBERED = 4096

ROUTER = "deployments.routing:AvoidingRouter"


@dataclass(frozen=True, slots=True)
class Route:
    """`strict`: wait for a replica outside `avoid` (a hedge); else take an avoided one if there is no other (a
    retry).
    """

    request_id: str
    avoid: frozenset[str] = frozenset()
    strict: bool = False


_placements: OrderedDict[str, str] = OrderedDict()


def placed(request_id: str) -> str:
    """The id of the replica that was last chosen for a request of this process, "" while none is."""
    return _placements.get(request_id, "")


def forget(request_id: str) -> None:
    """The request is over."""
    _placements.pop(request_id, None)


class AvoidingRouter(RequestRouter):  # type: ignore[misc]  # ray is untyped here
    """Power of two choices among the replicas that the request's Route allows."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if pending_request is None:
            return [candidate_replicas]
        # Without this the base class retries at once, forever, when it is given no candidate.
        pending_request.routing_context.should_backoff = True
        route = _route(pending_request)
        if route is None:
            return [candidate_replicas]
        allowed = [replica for replica in candidate_replicas if replica.replica_id.unique_id not in route.avoid]
        if not allowed and not route.strict:
            allowed = candidate_replicas
        if not allowed:
            return []
        pair = random.sample(allowed, min(2, len(allowed)))
        chosen = min(pair, key=self._known_queue)
        _remember(route.request_id, chosen.replica_id.unique_id)
        return [[chosen]]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult) -> None:
        route = _route(pending_request)
        if route is not None:
            _remember(route.request_id, replica_id.unique_id)

    def _known_queue(self, replica: RunningReplica) -> int:
        return self.replica_queue_len_cache.get(replica.replica_id) or 0


def _route(pending_request: PendingRequest) -> Route | None:
    arguments: list[Any] = pending_request.args
    return next((argument for argument in arguments if isinstance(argument, Route)), None)


def _remember(request_id: str, replica: str) -> None:
    _placements[request_id] = replica
    while len(_placements) > REMEMBERED:
        _placements.popitem(last=False)
