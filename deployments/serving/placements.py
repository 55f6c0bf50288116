"""Whom a call avoids, and where it went.

A `ReplicaRoute` travels as the second argument of every stage call; `deployments.serving.router` reads it and remembers
here which
replica it chose, so that the caller knows whom to avoid next even if that replica never answers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from ray.serve.exceptions import RayServeException

# Placements are read within milliseconds of the call; the bound only guards against callers that never ask.
REMEMBERED = 4096

ROUTER = "deployments.serving.router:AvoidingRouter"


class NoReplicaAvailable(RayServeException):  # type: ignore[misc]  # ray is untyped here
    """No replica of a deployment lives: asked now, it answers only after a replacement has started."""

    def __init__(self, deployment: str) -> None:
        super().__init__(f"no replica of {deployment} lives")


@dataclass(frozen=True, slots=True)
class ReplicaRoute:
    """`strict`: wait for a replica outside `avoid` (a hedge); else take an avoided one if there is no other (a
    retry). `sticky`: calls of the same value go to the same replica, as long as it is not busier than others.
    """

    request_id: str
    avoid: frozenset[str] = frozenset()
    strict: bool = False
    sticky: str = ""


_placements: OrderedDict[str, str] = OrderedDict()


def placed(request_id: str) -> str:
    """The id of the replica that was last chosen for a request of this process, "" while none is."""
    return _placements.get(request_id, "")


def remember(request_id: str, replica: str) -> None:
    """A replica was chosen for the request."""
    _placements[request_id] = replica
    while len(_placements) > REMEMBERED:
        _placements.popitem(last=False)


_queues: dict[str, dict[str, int]] = {}


def note_queues(deployment: str, queues: dict[str, int]) -> None:
    """What is known of the requests that each replica of a deployment has, whenever one is chosen."""
    _queues[deployment] = queues


def shortest_queue(deployment: str, avoid: frozenset[str]) -> int | None:
    """The least of them, but for replicas to be avoided; None if none is known."""
    return min((queue for replica, queue in _queues.get(deployment, {}).items() if replica not in avoid), default=None)


def forget(request_id: str) -> None:
    """The request is over."""
    _placements.pop(request_id, None)
