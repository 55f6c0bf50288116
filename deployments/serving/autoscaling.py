"""Autoscaling policies: hosts scale by their calls and the rate of new calls, stages by a queueing model.

They are used only for a deployment whose `max_replicas` is above its `min_replicas`. By default no deployment has this.

Serve's own policy counts ongoing requests. It fills hosts to their target before it adds one, and a host takes seconds
to start. So `HostPolicy` keeps places free for the calls that arrive while a host starts. For a stage, a target of
ongoing requests ignores the waiting time, which is what a caller notices. A target that keeps the wait short on five
replicas is also wasteful on 200 replicas with several slots. So `StagePolicy` computes the replicas that keep the share
of late requests below ALLOWED_LATE. A request is late if it waits longer than the stage's limit.

Every decision uses sums over all replicas: arrivals, service times, late requests. The largest waiting time of all
replicas would exceed its limit on a large stage at any load.

Replicas report their counts by `record_autoscaling_stats`. Serve applies `min_replicas`, `max_replicas` and the delays
to the numbers that the policies return. Serve sends this module to its controller by value, and our other modules may
be missing there, so this module imports none of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

SESSIONS = "sessions"
LOOP_LAG_S = "loop_lag_s"
ARRIVALS_PER_S = "arrivals_per_s"
BEGAN = "began"
LATE = "late"
ENDED = "ended"
SERVICE_S = "service_s"

ALLOWED_LATE = 0.1
"""Largest share of the requests of a stage that may wait longer than the limit."""

MOST_GROWTH = 5.0
"""Largest factor by which one decision multiplies the running replicas of a stage."""

SHRINK_ROOM = 0.2
"""A deployment loses replicas only if the others would suffice for this share more load than now."""

SHRINK_DEVIATIONS = 4.0
"""Standard deviations of the counted requests that the remaining replicas of a stage must suffice for. A small stage
counts few requests, and within minutes the counts deviate this much."""

GROW_DEVIATIONS = 0.5
"""Standard deviations by which the counted requests may exceed what the planned replicas suffice for."""

SETTLE_S = 15.0
"""Seconds for which the model's number of replicas must run before its error is corrected."""

MOST_CORRECTION = 4.0
"""Largest factor by which the measured waits may raise the modelled load."""

CORRECTION_STEP = 1.5
"""Largest factor by which one correction raises the modelled load."""

CORRECT_ABOVE = 1.25
"""The model is corrected if the share of late requests is above this multiple of what is allowed."""

CORRECTION_DECAY = 0.998
"""Factor of the correction every SETTLE_S seconds, while the share of late requests is below half of what is
allowed."""

LEAST_BEGAN = 30
"""Number of requests below which their share of late ones corrects nothing."""

LAGGING_SHARE = 0.1
"""Share of the hosts that may have a late event loop before a host is added."""

_BISECTIONS = 40
_NEGLIGIBLE = 1e-9
_CORRECTION, _SETTLED_AT, _ONGOING = "correction", "settled_at", "ongoing_when_settled"


@dataclass(frozen=True, slots=True)
class StageLoad:
    """Load of a stage, summed over its replicas.

    Attributes:
        arrivals_per_s: Requests per second that arrive at the replicas.
        began: Requests whose service began in the measured seconds.
        late: Requests among `began` that had waited longer than the limit.
        ended: Requests whose service ended in the measured seconds.
        service_s: Sum of the service times of the requests in `ended`, in seconds.
        ongoing: Requests in the stage, waiting ones included.
        queued: Requests among `ongoing` that wait in the callers' processes, because every replica is full.
    """

    arrivals_per_s: float = 0.0
    began: float = 0.0
    late: float = 0.0
    ended: float = 0.0
    service_s: float = 0.0
    ongoing: float = 0.0
    queued: float = 0.0

    @property
    def mean_service_s(self) -> float:
        """Mean service time in seconds; 0 if no request ended."""
        return self.service_s / self.ended if self.ended else 0.0

    @property
    def offered(self) -> float:
        """Offered load in Erlangs: the slots that the requests need on average.

        It does not grow with the requests that wait in the replicas, so a backlog is not counted as load. Without
        measured service times it is the number of ongoing requests.
        """
        return self.arrivals_per_s * self.mean_service_s + self.queued if self.ended else self.ongoing

    @property
    def late_share(self) -> float:
        """Share of the late requests; 0 if too few requests began to tell."""
        return self.late / self.began if self.began >= LEAST_BEGAN else 0.0


@lru_cache(maxsize=4096)
def late_share(utilisation: float, slots: int, choices: int, limit: float) -> float:
    """Return the share of the requests that wait longer than the limit. Each goes to the shortest of `choices` queues.

    This is the stationary solution of the mean-field equations of "the power of two choices", for replicas with several
    slots. It holds for many replicas and exponential service times. u(k) is the share of the replicas with at least k
    requests, and a request waits if it finds only replicas with `slots` requests.

    Args:
        utilisation: Mean share of the slots in use.
        slots: Slots of a replica.
        choices: Random replicas whose queues are compared. With 1 it is the exact solution (Erlang C) for one replica.
        limit: Longest wait, as a multiple of the mean service time.
    """
    if utilisation >= 1 or utilisation <= 0:
        return float(utilisation > 0)
    low, full = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + full) / 2
        if _all_replicas(middle, utilisation, slots=slots, choices=choices) < 1:
            low = middle
        else:
            full = middle
    late, in_time, waiting, term = 0.0, 0.0, 0, math.exp(-slots * limit)
    while full > _NEGLIGIBLE:
        in_time += term  # probability that at most `waiting` services end before the limit
        longer = utilisation * full**choices
        late += (full**choices - longer**choices) * in_time
        full, waiting = longer, waiting + 1
        term *= slots * limit / waiting
    return min(1.0, late)


def _all_replicas(full: float, utilisation: float, *, slots: int, choices: int) -> float:
    """Return u(0), which must be 1, if the share `full` of the replicas has no free slot: u(slots).

    In equilibrium, the requests that go to replicas with at least k - 1 requests equal the services that end in
    replicas with at least k: offered * u(k - 1)^choices = k * (u(k) - u(k + 1)) + offered * u(k)^choices.
    """
    offered = utilisation * slots
    above, here = full, (full / utilisation) ** (1 / choices)
    for busy in range(slots - 1, 0, -1):
        above, here = here, (busy * (here - above) / offered + here**choices) ** (1 / choices)
        if here > 1:
            break
    return float(here)


def pooled_late_share(offered: float, slots: int, limit: float) -> float:
    """Return the share of the requests that wait longer than the limit in one queue with `slots` slots.

    No routing does better, so it is what the fluctuations of the load cost. Halfin and Whitt's approximation of
    Erlang C needs no loop over the slots.

    Args:
        offered: Offered load in Erlangs.
        slots: Slots of all replicas.
        limit: Longest wait, as a multiple of the mean service time.
    """
    spare = slots - offered
    if spare <= 0:
        return 1.0
    beta = spare / math.sqrt(slots)
    density = math.exp(-beta * beta / 2) / math.sqrt(2 * math.pi)
    normal = (1 + math.erf(beta / math.sqrt(2))) / 2
    return math.exp(-spare * limit) / (1 + beta * normal / density) if density > _NEGLIGIBLE else 0.0


def replicas_for(offered: float, service_s: float, *, target: float, queue_limit_s: float) -> int:
    """Return the smallest number of replicas with which at most ALLOWED_LATE of the requests are late, at least 1.

    Args:
        offered: Offered load in Erlangs.
        service_s: Mean service time in seconds.
        target: Requests that a replica serves at the same time. A fraction below 1 plans several replicas for a
            request.
        queue_limit_s: Wait in seconds above which a request is late.
    """
    slots = max(1, int(target))
    offered *= slots / target
    # Rounded values make `late_share` a table that is computed once.
    limit = float(f"{min(10.0, queue_limit_s / service_s):.1g}") if service_s else 0.0

    def suffices(replicas: int) -> bool:
        utilisation = min(1.0, math.ceil(100 * offered / (replicas * slots)) / 100)
        alone = late_share(utilisation, slots, 1, limit)
        if replicas == 1 or alone <= ALLOWED_LATE:
            return alone <= ALLOWED_LATE
        pooled = pooled_late_share(offered, replicas * slots, limit)
        return late_share(utilisation, slots, 2, limit) + pooled <= ALLOWED_LATE

    low, high = max(1, math.floor(offered / slots)), max(1, math.floor(offered / slots))
    while not suffices(high):
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        if suffices(middle):
            high = middle
        else:
            low = middle + 1
    return low


def desired_replicas(
    load: StageLoad,
    running: int,
    planned: int,
    state: dict[str, Any],
    *,
    now: float,
    target: float,
    queue_limit_s: float,
) -> tuple[int, dict[str, Any]]:
    """Return the number of replicas for a stage, and the state for the next decision.

    It is what the queueing model requires for the offered load. Measured waits correct the model, because requests that
    stay on their conversation's replica wait longer than it says. If the model's number of replicas has run for
    SETTLE_S and too many requests are late, and the backlog does not shrink, the modelled load grows by a factor.

    Fewer replicas are returned only if they suffice for SHRINK_ROOM more load, or for SHRINK_DEVIATIONS standard
    deviations of the counted requests if these are more.

    Args:
        load: The load of the stage.
        running: Replicas that run now.
        planned: Replicas that Serve aims at: those that run and those that start.
        state: The state that the previous decision returned; empty at first.
        now: Time in seconds.
        target: Requests that a replica serves at the same time.
        queue_limit_s: Wait in seconds above which a request is late.
    """
    fits = partial(replicas_for, service_s=load.mean_service_s, target=target, queue_limit_s=queue_limit_s)
    correction = float(state.get(_CORRECTION, 1.0))
    settled = running >= fits(load.offered * correction)
    if not settled or _SETTLED_AT not in state:
        state = {_CORRECTION: correction, **({_SETTLED_AT: now, _ONGOING: load.ongoing} if settled else {})}
    elif now - state[_SETTLED_AT] >= SETTLE_S:
        draining = load.ongoing < 0.8 * state[_ONGOING]
        correction = _corrected(correction, load.late_share, draining=draining)
        state = {_CORRECTION: correction, _SETTLED_AT: now, _ONGOING: load.ongoing}
    needed, deviation = fits(load.offered * correction), 1 / math.sqrt(max(1.0, load.ended))
    if fits(load.offered * correction * (1 - GROW_DEVIATIONS * deviation)) > planned:
        return min(needed, max(planned, math.ceil(running * MOST_GROWTH))), state
    room = 1 + max(SHRINK_ROOM, SHRINK_DEVIATIONS * deviation)
    return min(planned, fits(load.offered * correction * room)), state


def _corrected(correction: float, late: float, *, draining: bool) -> float:
    """Return the next factor of the modelled load.

    Args:
        correction: The factor now.
        late: Share of the late requests.
        draining: True if the backlog shrinks, so that late requests do not show an error of the model.
    """
    if late > ALLOWED_LATE * CORRECT_ABOVE and not draining:
        # With two choices, the share of late requests grows at least with the square of the utilisation.
        return min(MOST_CORRECTION, correction * min(CORRECTION_STEP, math.sqrt(late / ALLOWED_LATE)))
    return max(1.0, correction * CORRECTION_DECAY) if late < ALLOWED_LATE / 2 else correction


@dataclass(frozen=True, slots=True)
class HostLoad:
    """Load of all session hosts.

    Attributes:
        sessions: Live calls.
        arrivals_per_s: New calls per second, refused ones included.
        mean_call_s: Mean length in seconds of the calls that ended; 0 if none ended.
        lagging: Hosts whose event loop is late.
        reporting: Hosts that reported.
    """

    sessions: float
    arrivals_per_s: float = 0.0
    mean_call_s: float = 0.0
    lagging: int = 0
    reporting: int = 0


def desired_hosts(
    load: HostLoad, running: int, planned: int, *, target: float, most: int, headroom: float, start_s: float
) -> int:
    """Return the number of session hosts for the live calls and for those that arrive while a host starts, at least 1.

    A host more than now is returned if more than LAGGING_SHARE of the hosts have a late event loop.

    Fewer hosts are returned only if they suffice for the calls that the present rate of new calls leads to, for half of
    SHRINK_ROOM more, and for two standard deviations of their number. The live calls alone are too few for this,
    because a host that is removed keeps calls which are no longer reported.

    Args:
        load: The load of the hosts.
        running: Hosts that run now.
        planned: Hosts that Serve aims at: those that run and those that start.
        target: Number of calls that a host should have.
        most: Maximum number of calls of a host.
        headroom: Places to keep free in any case, as a share of the live calls, for example 0.1.
        start_s: Seconds that a host takes to come up.
    """

    def hosts_for(sessions: float) -> int:
        expected = sessions + max(sessions * headroom, load.arrivals_per_s * start_s)
        return max(1, math.ceil(expected / target), math.ceil(sessions / most))

    needed = hosts_for(load.sessions)
    if load.lagging > LAGGING_SHARE * load.reporting:
        needed = max(needed, running + 1)
    if needed > planned:
        return needed
    lasting = max(load.sessions, load.arrivals_per_s * load.mean_call_s)
    return min(planned, max(needed, hosts_for(lasting * (1 + SHRINK_ROOM / 2) + 2 * math.sqrt(lasting))))


class HostPolicy:
    """Serve's autoscaling policy for the session hosts. Serve's controller constructs and calls it.

    The live sessions, the new calls and the event-loop lag come from the signals that the hosts report.

    Args:
        target: Number of calls that a host should have.
        most: Maximum number of calls of a host.
        headroom: Places to keep free in any case, as a share of the live calls.
        start_s: Seconds that a host takes to come up.
        lag_limit_s: Event-loop lag in seconds above which a host counts as late.
    """

    def __init__(self, target: float, most: int, headroom: float, *, start_s: float, lag_limit_s: float) -> None:
        self._desired = partial(desired_hosts, target=target, most=most, headroom=headroom, start_s=start_s)
        self._lag_limit_s = lag_limit_s

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of hosts and the unchanged policy state. `context` is Serve's `AutoscalingContext`."""
        lags, ended = _latest(context, LOOP_LAG_S), sum(_latest(context, ENDED))
        load = HostLoad(
            sessions=sum(_latest(context, SESSIONS)),
            arrivals_per_s=sum(_latest(context, ARRIVALS_PER_S)),
            mean_call_s=sum(_latest(context, SERVICE_S)) / ended if ended else 0.0,
            lagging=sum(lag_s > self._lag_limit_s for lag_s in lags),
            reporting=len(lags),
        )
        return self._desired(load, context.current_num_replicas, context.target_num_replicas), context.policy_state


class StagePolicy:
    """Serve's autoscaling policy for the stages. Serve's controller constructs and calls it.

    The counts come from the signals that the replicas report.

    Args:
        target: Requests that a replica serves at the same time.
        queue_limit_s: Waiting time in seconds above which a request is late.
    """

    def __init__(self, target: float, queue_limit_s: float) -> None:
        self._desired = partial(desired_replicas, target=target, queue_limit_s=queue_limit_s)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas and the next policy state. `context` is Serve's `AutoscalingContext`."""
        load = StageLoad(
            arrivals_per_s=sum(_latest(context, ARRIVALS_PER_S)),
            began=sum(_latest(context, BEGAN)),
            late=sum(_latest(context, LATE)),
            ended=sum(_latest(context, ENDED)),
            service_s=sum(_latest(context, SERVICE_S)),
            ongoing=context.total_num_requests,
            queued=context.total_queued_requests or 0.0,
        )
        running, planned = context.current_num_replicas, context.target_num_replicas
        return self._desired(load, running, planned, dict(context.policy_state), now=context.current_time or 0.0)


def _latest(context: Any, name: str) -> list[float]:
    """Return each replica's newest value of the signal `name` from Serve's `AutoscalingContext`.

    A replica that has not reported the signal is left out.
    """
    series = (context.raw_metrics or {}).get(name) or {}
    return [float(values[-1].value) for values in series.values() if values]
