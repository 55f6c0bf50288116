"""Which replica gets a call: its conversation's own, or of two random ones that with the shorter queue, but never one
that the caller asks to avoid.

Serve's own router gives no anti-affinity, and a hedge sent to the replica that stalls buys nothing. The router runs in
the caller's process. Serve ships it there by value, as a copy of this module: so nothing here may keep state or
define a type that others name. Those are in `deployments.serving.placements`, which stays the one module that it is.
"""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, ReplicaResult, RequestRouter, RunningReplica

from deployments.serving.placements import NoReplicaAvailable, ReplicaRoute, note_queues, remember

# Calls that may look for a replica at once, in one process: more than its sessions can have under way.
MAX_ROUTING = 1024
# A conversation's own replica is left for one with so many calls less: computing its state again costs about one call.
YIELD = 3


class AvoidingRouter(RequestRouter):  # type: ignore[misc]  # ray is untyped here
    """Power of two choices among the replicas that the request's Route allows.

    While no replica lives, a call with a Route fails at once. Serve's own router waits for the replacement and says
    nothing, and with it a caller would wait who ought to hear an apology. Only a deployment's first replicas are waited
    for.
    """

    _populated = False

    @property
    def max_num_routing_tasks(self) -> int:
        """Serve's own limit, two a replica, would let a few waiting hedges hold up every other call."""
        return MAX_ROUTING

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
        known = {replica.replica_id.unique_id: self._known_queue(replica) for replica in candidate_replicas}
        note_queues(self._deployment_id.name, known)
        allowed = [replica for replica in candidate_replicas if replica.replica_id.unique_id not in route.avoid]
        if not allowed and not route.strict:
            allowed = candidate_replicas
        if not allowed:
            return []
        chosen = self._choose(allowed, route.sticky)
        remember(route.request_id, chosen.replica_id.unique_id)
        return [[chosen]]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult) -> None:
        route = _route(pending_request)
        if route is not None:
            remember(route.request_id, replica_id.unique_id)

    async def _choose_replica_for_request(
        self, pending_request: PendingRequest, *, is_retry: bool = False
    ) -> RunningReplica:
        if self._deserted and _route(pending_request) is not None:
            raise NoReplicaAvailable(self._deployment_id.name)
        return await super()._choose_replica_for_request(pending_request, is_retry=is_retry)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        self._populated = self._populated or bool(replicas)
        self._turn_away()

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        super().on_replica_actor_died(replica_id)
        self._turn_away()

    @property
    def _deserted(self) -> bool:
        return self._populated and not self.curr_replicas

    def _turn_away(self) -> None:
        """Fail the calls that wait for a replica when none is left."""
        if not self._deserted:
            return
        name = self._deployment_id.name
        note_queues(name, {})
        for pending in tuple(self._pending_requests_to_fulfill):
            if not pending.future.done() and _route(pending) is not None:
                self._cancel_routing_task_for_pending_request(pending)
                self._remove_pending_request_from_indices(pending)
                pending.future.set_exception(NoReplicaAvailable(name))

    def _get_pending_request_matching_internal_request_id(
        self, request_metadata: object = None
    ) -> PendingRequest | None:
        """The very call for which a replica was chosen.

        Serve's own looks it up by the request id, which all calls of one conversation share: of two that wait for the
        same deployment, the second would wait for ever, and keep a routing task.
        """
        waiting = self._pending_requests_to_fulfill
        mine = (pending for pending in waiting if pending.metadata is request_metadata and not pending.future.done())
        return next(mine, None)

    def _choose(self, allowed: list[RunningReplica], sticky: str) -> RunningReplica:
        """The shorter queue of two; for a conversation its own replica, unless that has YIELD more than the other."""
        pair = random.sample(allowed, min(2, len(allowed)))
        shorter = min(pair, key=self._known_queue)
        if not sticky:
            return shorter
        # Rendezvous hashing: a replica that comes or goes moves only the conversations that are its own.
        own = max(allowed, key=lambda replica: blake2b(f"{sticky}/{replica.replica_id.unique_id}".encode()).digest())
        return own if self._known_queue(own) < self._known_queue(shorter) + YIELD else shorter

    def _known_queue(self, replica: RunningReplica) -> int:
        return self.replica_queue_len_cache.get(replica.replica_id) or 0


def _route(pending_request: PendingRequest) -> ReplicaRoute | None:
    arguments: list[Any] = pending_request.args
    return next((argument for argument in arguments if isinstance(argument, ReplicaRoute)), None)
