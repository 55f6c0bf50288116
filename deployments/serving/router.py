"""Request router of the stages: it decides which replica gets a call.

A call with a conversation's id goes to the replica that hashing assigns to the conversation, which has its KV cache.
Any other call goes to the one of two random replicas with the shorter queue. A replica that the call should avoid gets
it only if there is no other replica. It never gets a strict call (a hedge), which waits for another replica. Serve's
own router cannot avoid a replica, and a hedge sent to the stalled replica gains nothing.

The router runs in the caller's process. Serve sends this module there by value, as a copy. So the module must not keep
state that other modules read, or define a type that they use: `placements.py`, which is imported by name, has these.
"""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RunningReplica

from deployments.serving.compat import RouterInternals
from deployments.serving.placements import NoReplicaAvailable, ReplicaRoute, note_queues, remember

# Maximum number of calls of one process that are being routed at once. A host has fewer calls in progress.
MAX_ROUTING = 1024
# A call leaves its conversation's replica only for a replica with at least this many requests less in its queue. The
# other replica must compute the conversation's KV cache again, which costs about as much as one request.
STICKY_MARGIN = 3


class AvoidingRouter(RouterInternals):
    """Request router that chooses among the replicas that the `ReplicaRoute` of a request allows.

    A request waits if the deployment is new and has no replica yet, or if it is strict and all replicas are in its
    `avoid`. If the deployment had replicas and has none now, waiting and new requests fail with `NoReplicaAvailable`,
    so that the session host can play an apology. A request without a `ReplicaRoute` (a health check, a test) is routed
    by Serve's own rule.
    """

    _populated = False

    @property
    def max_num_routing_tasks(self) -> int:
        """Maximum number of requests that are routed at once.

        Serve's own limit is two per replica. With it, a few hedges that wait for a replica would block all other calls.
        """
        return MAX_ROUTING

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return [[replica]] with the replica that the request goes to, or [] if a strict request must wait.

        For a request without a `ReplicaRoute` return all of `candidate_replicas` in one list, as Serve expects.
        """
        if pending_request is None:
            return [candidate_replicas]
        # Without backoff the base class retries in a busy loop while `choose_replicas` returns no replica.
        pending_request.routing_context.should_backoff = True
        route = _route(pending_request)
        if route is None:
            return [candidate_replicas]
        note_queues(
            self.deployment,
            {replica.replica_id.unique_id: self._queue_length(replica) for replica in candidate_replicas},
        )
        allowed = [replica for replica in candidate_replicas if route.allows(replica.replica_id.unique_id)]
        if not allowed and not route.strict and not route.only:
            allowed = candidate_replicas
        if not allowed:
            return []
        chosen = self._choose(allowed, route.sticky)
        remember(route.request_id, chosen.replica_id.unique_id)
        return [[chosen]]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: object) -> None:
        """Record the replica that accepted the request.

        It may differ from the replica that `choose_replicas` recorded, which may have rejected the request.
        """
        route = _route(pending_request)
        if route is not None:
            remember(route.request_id, replica_id.unique_id)

    def before_routing(self, pending: PendingRequest) -> None:
        """Raise NoReplicaAvailable if the deployment had replicas and has none now, or if `only` is gone."""
        route = _route(pending)
        if route is None:
            return
        gone = route.only and all(replica_id.unique_id != route.only for replica_id in self.curr_replicas)
        if self._deserted or gone:
            raise NoReplicaAvailable(self.deployment)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Use the replicas that Serve's controller reports. If there are none, fail the waiting requests."""
        super().update_replicas(replicas)
        self._populated = self._populated or bool(replicas)
        self._fail_waiting_requests()

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Drop a replica that was found dead, and fail the waiting requests if it was the last one."""
        super().on_replica_actor_died(replica_id)
        self._fail_waiting_requests()

    @property
    def _deserted(self) -> bool:
        return self._populated and not self.curr_replicas

    def _fail_waiting_requests(self) -> None:
        if not self._deserted:
            return
        note_queues(self.deployment, {})
        for pending in self.waiting_requests():
            if _route(pending) is not None:
                self.fail_request(pending, NoReplicaAvailable(self.deployment))

    def _choose(self, allowed: list[RunningReplica], sticky: str) -> RunningReplica:
        """Return the replica of `allowed` that a request goes to.

        If `sticky` (the conversation's id) is "", it is the one of two random replicas with the shorter queue.
        Otherwise it is the replica that hashing assigns to the conversation. But if its queue is at
        least STICKY_MARGIN requests longer than that shorter queue, return the replica with the shorter queue.
        """
        pair = random.sample(allowed, min(2, len(allowed)))
        shorter = min(pair, key=self._queue_length)
        if not sticky:
            return shorter
        # Rendezvous hashing: when a replica comes or goes, only the conversations assigned to it move.
        own = max(allowed, key=lambda replica: blake2b(f"{sticky}/{replica.replica_id.unique_id}".encode()).digest())
        return own if self._queue_length(own) < self._queue_length(shorter) + STICKY_MARGIN else shorter

    def _queue_length(self, replica: RunningReplica) -> int:
        """Return the queue length that the replica last reported, in requests; 0 before its first report."""
        return self.replica_queue_len_cache.get(replica.replica_id) or 0


def _route(pending_request: PendingRequest) -> ReplicaRoute | None:
    arguments: list[Any] = pending_request.args
    return next((argument for argument in arguments if isinstance(argument, ReplicaRoute)), None)
