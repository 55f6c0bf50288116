"""Routing instructions of calls, and records of the replica that each call got and of the replicas' queue lengths.

A `ReplicaRoute` is passed as the second argument of every stage call. `router.py` reads it and records here which
replica it chose. So the caller can avoid that replica in its next attempt, even if the replica never answers. The
records are state of this module in the caller's process. Serve runs a copy of `router.py` there, but the copy imports
this module by name, so caller and router share the records.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from ray.serve.exceptions import RayServeException

# Maximum number of records of which replica a call got. A record is normally deleted when its call ends. The limit
# drops the oldest records, in case some are never deleted.
MAX_PLACEMENTS = 4096

ROUTER = "deployments.serving.router:AvoidingRouter"


class NoReplicaAvailable(RayServeException):  # type: ignore[misc]  # ray is untyped here
    """The deployment has no running replica. A retry succeeds only after a replacement has started."""

    def __init__(self, deployment: str) -> None:
        super().__init__(f"{deployment} has no running replica")


@dataclass(frozen=True, slots=True)
class ReplicaRoute:
    """Routing instructions for one call.

    Attributes:
        request_id: Key of the call for `placed` and `forget`, unique in the process.
        avoid: Ids of the replicas that should not get the call.
        strict: If True, the call waits for a replica that is not in `avoid` (for a hedge). If False, a replica in
            `avoid` gets the call if there is no other replica (for a retry).
        sticky: Calls with the same non-empty value go to the same replica, unless its queue is clearly longer than the
            others.
        only: Id of the replica that gets the call; "" for any. If it is gone, the call fails.
        host: Id of the session host that calls, "" if it does not want the replica's load with the answer.
        live: Number of live calls of this host.
    """

    request_id: str
    avoid: frozenset[str] = frozenset()
    strict: bool = False
    sticky: str = ""
    only: str = ""
    host: str = ""
    live: int = 0

    def allows(self, replica: str) -> bool:
        """Return True if the replica with this id may get the call."""
        return replica == self.only if self.only else replica not in self.avoid


_placements: OrderedDict[str, str] = OrderedDict()


def placed(request_id: str) -> str:
    """Return the id of the replica that was last chosen for a request of this process, "" if none was."""
    return _placements.get(request_id, "")


def remember(request_id: str, replica: str) -> None:
    """Record that the replica with id `replica` was chosen for the request, and drop the oldest surplus records."""
    _placements[request_id] = replica
    while len(_placements) > MAX_PLACEMENTS:
        _placements.popitem(last=False)


_queues: dict[str, dict[str, int]] = {}


def note_queues(deployment: str, queues: dict[str, int]) -> None:
    """Record the queue lengths of a deployment's replicas, in requests by replica id, and drop the earlier ones."""
    _queues[deployment] = queues


def shortest_queue(deployment: str, avoid: frozenset[str]) -> int | None:
    """Return the shortest recorded queue of the replicas not in `avoid`, in requests; None if there is no record."""
    return min((queue for replica, queue in _queues.get(deployment, {}).items() if replica not in avoid), default=None)


def forget(request_id: str) -> None:
    """Delete the record of the replica that was chosen for a request. Call this when the request is over."""
    _placements.pop(request_id, None)
