"""When to add or remove replicas: hosts by the calls they hold, stages by how long work waits for them.

Serve's own rule counts ongoing requests. For a host that is nearly right (a call is one request for life), but it fills
hosts to their target before it adds one, and a host takes seconds to start: so a share of the places stays free. For a
stage it knows nothing of waiting, which is what a caller hears: so a stage also grows while work waits for it too long,
however few requests that takes.

Serve ships this module to its controller by value, where our other modules may not exist: it imports nothing of ours.
Replicas report their signals by `record_autoscaling_stats`; `min_replicas`, `max_replicas` and the delays stay Serve's.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

SESSIONS = "sessions"
LOOP_LAG_S = "loop_lag_s"
QUEUE_S = "queue_s"

# One step at most doubles a stage: what waits meanwhile would otherwise be counted again and again.
MOST_GROWTH = 2.0
# Shrink only if the work would fit into one replica less with this share of it to spare.
SHRINK_ROOM = 0.8


def hosts_wanted(
    sessions: float, lag_s: float, running: int, *, target: float, most: int, headroom: float, lag_limit_s: float
) -> int:
    """Enough hosts for the live calls and `headroom` more of them at `target` calls each; one more if a loop is late,
    and never fewer than what `most` calls a host demand.
    """
    wanted = max(math.ceil(sessions * (1 + headroom) / target), math.ceil(sessions / most), 1)
    return max(wanted, running + 1) if lag_s > lag_limit_s else wanted


def replicas_wanted(ongoing: float, queue_s: float, running: int, *, target: float, queue_limit_s: float) -> int:
    """In proportion to the wait while it exceeds its limit, at most doubling; else what the ongoing requests need at
    their target, and fewer only if that is clearly less.
    """
    if queue_s > queue_limit_s:
        return math.ceil(running * min(MOST_GROWTH, max(queue_s / queue_limit_s, ongoing / (target * max(1, running)))))
    needed = max(1, math.ceil(ongoing / target))
    if needed >= running:
        return needed
    return needed if ongoing <= target * (running - 1) * SHRINK_ROOM else running


class HostPolicy:
    """Serve's autoscaling policy of the session hosts."""

    def __init__(self, target: float, most: int, headroom: float, lag_limit_s: float) -> None:
        self._wanted = partial(hosts_wanted, target=target, most=most, headroom=headroom, lag_limit_s=lag_limit_s)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        sessions = sum(_latest(context, SESSIONS))
        lag_s = max(_latest(context, LOOP_LAG_S), default=0.0)
        return self._wanted(sessions, lag_s, context.current_num_replicas), context.policy_state


class StagePolicy:
    """Serve's autoscaling policy of the stages."""

    def __init__(self, target: float, queue_limit_s: float) -> None:
        self._wanted = partial(replicas_wanted, target=target, queue_limit_s=queue_limit_s)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        queue_s = max(_latest(context, QUEUE_S), default=0.0)
        wanted = self._wanted(context.total_num_requests, queue_s, context.current_num_replicas)
        return wanted, context.policy_state


def _latest(context: Any, name: str) -> list[float]:
    """Each replica's newest value of a signal."""
    series = (context.raw_metrics or {}).get(name) or {}
    return [float(values[-1].value) for values in series.values() if values]
