"""Autoscaling policies: hosts scale by their number of calls, stages by how long requests wait in them.

They are used only for a deployment whose `max_replicas` is above its `min_replicas`. By default no deployment has this.

Serve's own policy counts ongoing requests. For a host this is nearly right, since a call is one request until it ends.
But Serve fills hosts to their target before it adds one, and a host takes seconds to start. So `HostPolicy` keeps a
share of the calls' places free. For a stage, the number of requests does not show the waiting time, which is what a
caller notices. So `StagePolicy` also adds replicas while the waiting time is above its limit.

Replicas report their signals by `record_autoscaling_stats`. Serve applies `min_replicas`, `max_replicas` and the delays
to the numbers that the policies return. Serve sends this module to its controller by value, and our other modules may
be missing there, so this module imports none of them.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

SESSIONS = "sessions"
LOOP_LAG_S = "loop_lag_s"
QUEUE_S = "queue_s"

# Largest factor by which one decision multiplies the replicas of a stage. Requests that wait while new replicas start
# are counted again in the next decision, so without a limit a stage would grow too far.
MOST_GROWTH = 2.0
# A stage loses replicas only if its requests use at most this share of the capacity of one replica less.
SHRINK_ROOM = 0.8


def desired_hosts(
    sessions: float, lag_s: float, running: int, *, target: float, most: int, headroom: float, lag_limit_s: float
) -> int:
    """Return the number of session hosts that the live calls and the places kept free need, at least 1.

    Args:
        sessions: Live calls on all hosts.
        lag_s: The largest event-loop lag of a host, in seconds.
        running: Hosts that run now.
        target: Number of calls that a host should have.
        most: Maximum number of calls of a host.
        headroom: Places to keep free, as a share of the live calls, for example 0.1.
        lag_limit_s: Lag in seconds above which the result is at least `running` + 1.
    """
    desired = max(math.ceil(sessions * (1 + headroom) / target), math.ceil(sessions / most), 1)
    return max(desired, running + 1) if lag_s > lag_limit_s else desired


def desired_replicas(ongoing: float, queue_s: float, running: int, *, target: float, queue_limit_s: float) -> int:
    """Return the number of replicas for a stage.

    While requests wait longer than the limit, the stage grows by the ratio of the waiting time to the limit, or of the
    ongoing requests to the target if this is larger, but at most twofold. Otherwise it grows to what the target
    requires. It shrinks only if the requests use at most the share SHRINK_ROOM of the capacity of one replica less.

    Args:
        ongoing: Requests in the stage, waiting ones included.
        queue_s: The longest waiting time that a replica reports, in seconds.
        running: Replicas that run now.
        target: Ongoing requests that a replica should have.
        queue_limit_s: Limit of the waiting time, in seconds.
    """
    if queue_s > queue_limit_s:
        return math.ceil(running * min(MOST_GROWTH, max(queue_s / queue_limit_s, ongoing / (target * max(1, running)))))
    needed = max(1, math.ceil(ongoing / target))
    if needed >= running:
        return needed
    return needed if ongoing <= target * (running - 1) * SHRINK_ROOM else running


class HostPolicy:
    """Serve's autoscaling policy for the session hosts. Serve's controller constructs and calls it.

    The live sessions and the event-loop lag come from the signals that the hosts report.

    Args:
        target: Number of calls that a host should have.
        most: Maximum number of calls of a host.
        headroom: Places to keep free, as a share of the live calls.
        lag_limit_s: Event-loop lag in seconds above which a host is added.
    """

    def __init__(self, target: float, most: int, headroom: float, lag_limit_s: float) -> None:
        self._desired = partial(desired_hosts, target=target, most=most, headroom=headroom, lag_limit_s=lag_limit_s)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of hosts and the unchanged policy state. `context` is Serve's `AutoscalingContext`."""
        sessions = sum(_latest(context, SESSIONS))
        lag_s = max(_latest(context, LOOP_LAG_S), default=0.0)
        return self._desired(sessions, lag_s, context.current_num_replicas), context.policy_state


class StagePolicy:
    """Serve's autoscaling policy for the stages. Serve's controller constructs and calls it.

    The waiting time comes from the signals that the replicas report.

    Args:
        target: Ongoing requests that a replica should have.
        queue_limit_s: Waiting time in seconds above which replicas are added.
    """

    def __init__(self, target: float, queue_limit_s: float) -> None:
        self._desired = partial(desired_replicas, target=target, queue_limit_s=queue_limit_s)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas and the unchanged policy state. `context` is Serve's `AutoscalingContext`."""
        queue_s = max(_latest(context, QUEUE_S), default=0.0)
        desired = self._desired(context.total_num_requests, queue_s, context.current_num_replicas)
        return desired, context.policy_state


def _latest(context: Any, name: str) -> list[float]:
    """Return each replica's newest value of the signal `name` from Serve's `AutoscalingContext`.

    A replica that has not reported the signal is left out.
    """
    series = (context.raw_metrics or {}).get(name) or {}
    return [float(values[-1].value) for values in series.values() if values]
