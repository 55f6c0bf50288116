"""Load of a stage replica: how much of its capacity the calls use, and how long their requests wait.

A replica measures its load with a `LoadMeter` and sends a `StageReport` with its answers, so the hosts learn the load
of the stages without further requests. Each request names its host and that host's number of live calls. So a replica
also tells every host how many hosts and calls there are.

The load of a call begins some seconds after the call: the caller speaks first. So the load is compared with the number
of calls CALLS_LAG_S earlier. While calls arrive, this overestimates the load of one call, never the other way round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

WINDOW_S = 10.0
"""Seconds of work that a report covers. A turn of a call takes about this long, so each call is in the window once."""
CALLS_LAG_S = 5.0
"""Seconds from the beginning of a call until its first turn has used the stages: greeting, speech, end of turn."""
WAITS_S = 5.0
"""Seconds of waiting times that a report covers. Shorter than WINDOW_S, so that the end of a queue shows soon."""
HOST_TTL_S = 15.0
"""Seconds after its last request for which a host counts."""
MAX_HOSTS = 1024
"""Maximum number of hosts that a replica remembers. If there are more, it forgets the one that asked longest ago."""
MAX_RECORDS = 2048
"""Maximum number of ended requests that a replica remembers. With more in WINDOW_S, a report covers a shorter time."""
REUSE_S = 0.25
"""Seconds for which a measurement is used for further reports: it goes through all requests of the window."""
QUEUE_QUANTILE = 0.9
"""Quantile of the waiting times in a report."""


@dataclass(frozen=True, slots=True)
class StageReport:
    """Load of one stage replica, over the last WINDOW_S seconds unless a field says otherwise.

    Attributes:
        replica: Serve's id of the replica.
        slots: Number of requests that the replica works on at once; 0 if it is not known.
        utilisation: Mean share of the slots that worked on requests that a turn waits for. It exceeds 1 if requests of
            an engine that does not tell their waiting time are queueing. 0 if the number of slots is not known.
        load: The same share for all requests, with interim transcripts and prefills, which may be left out.
        queue_s: 90th percentile of the waits of requests that a turn waits for, in seconds (last WAITS_S seconds).
        first_s: Median time from the beginning of the service to the first output, in seconds; 0 without a request.
        service_s: Mean time that a request uses a slot, in seconds; 0 without a request.
        tokens_per_s: Median rate at which one answer is written, in tokens per second; 0 if no tokens were written.
        hosts: Number of hosts that sent requests, the receiver included.
        other_calls: Live calls of the other hosts.
        calls_before: Mean number of live calls of all hosts, CALLS_LAG_S before the window.
    """

    replica: str
    slots: int
    utilisation: float
    load: float
    queue_s: float
    first_s: float
    service_s: float
    tokens_per_s: float = 0.0
    hosts: int = 1
    other_calls: int = 0
    calls_before: float = 0.0


@dataclass(slots=True, eq=False)
class Work:
    """One request in a replica. Times are monotonic, in seconds.

    Attributes:
        arrived_at: When it arrived.
        essential: Whether a turn waits for the request. If not, it may be left out under load.
        queue_s: How long it waited for a slot; None if this is not known yet.
        first_at: When its first output was ready; None before.
        busy_s: Slot time that it used, if this differs from the time between its wait and its end; None if not.
        tokens: Number of tokens written for it.
        ended_at: When it ended; None before.
    """

    arrived_at: float
    essential: bool = True
    queue_s: float | None = None
    first_at: float | None = None
    busy_s: float | None = None
    tokens: int = 0
    ended_at: float | None = None

    @property
    def began_at(self) -> float:
        """When its service began, in seconds; its arrival if the wait is not known."""
        return self.arrived_at + (self.queue_s or 0.0)

    @property
    def used_s(self) -> float:
        """Slot time of an ended request, in seconds."""
        return self.busy_within(self.began_at, self.began_at)

    def busy_within(self, start: float, now: float) -> float:
        """Return the slot time that the request used between `start` and `now`, in seconds."""
        end = now if self.ended_at is None else self.ended_at
        spent_s = max(0.0, end - max(self.began_at, start))
        return spent_s if self.busy_s is None else min(self.busy_s, spent_s)


class LoadMeter:
    """Measures the load of one stage replica. It has no clock: its methods take `now`, in seconds. Not thread-safe."""

    def __init__(self, replica: str, slots: int) -> None:
        """Create a meter.

        Args:
            replica: Serve's id of the replica.
            slots: Number of requests that the replica works on at once; 0 if it is not known.
        """
        self.slots = slots
        self._replica = replica
        self._running: set[Work] = set()
        self._ended: deque[Work] = deque(maxlen=MAX_RECORDS)
        self._hosts: dict[str, tuple[int, float]] = {}
        self._calls: deque[tuple[float, int]] = deque()
        self._measured: tuple[float, StageReport] | None = None

    def begin(self, work: Work) -> None:
        """Record a request that arrived. `end` must follow."""
        self._running.add(work)

    def end(self, work: Work, now: float) -> None:
        """Record the end of a request."""
        work.ended_at = now
        self._running.discard(work)
        self._ended.append(work)

    def asked(self, host: str, live: int, now: float) -> None:
        """Record that a host with `live` calls sent a request."""
        self._hosts.pop(host, None)
        self._hosts[host] = (live, now)
        for other, (_, seen_at) in list(self._hosts.items()):  # oldest first: `asked` moves a host to the end
            if seen_at >= now - HOST_TTL_S and len(self._hosts) <= MAX_HOSTS:
                break
            del self._hosts[other]
        total = sum(calls for calls, _ in self._hosts.values())
        if not self._calls or self._calls[-1][1] != total:
            self._calls.append((now, total))
        while len(self._calls) > 1 and self._calls[1][0] <= now - WINDOW_S - CALLS_LAG_S:
            self._calls.popleft()

    def report(self, now: float, host: str = "") -> StageReport:
        """Return the load (measured at most REUSE_S ago) and the number of calls now, for the host with this id."""
        if self._measured is None or not 0 <= now - self._measured[0] < REUSE_S:
            self._measured = (now, self._measure(now))
        own, _ = self._hosts.get(host, (0, now))
        known = sum(calls for calls, _ in self._hosts.values())
        return replace(self._measured[1], hosts=max(1, len(self._hosts)), other_calls=known - own)

    def _measure(self, now: float) -> StageReport:
        """Return the load now. The numbers of hosts and of their calls are not filled in."""
        start = now - WINDOW_S
        while self._ended and (self._ended[0].ended_at or 0.0) < start:
            self._ended.popleft()
        if len(self._ended) == MAX_RECORDS:
            start = max(start, self._ended[0].ended_at or start)
        done = [work for work in self._ended if work.essential]
        everything = (*self._ended, *self._running)
        waits_s = sorted(
            work.queue_s
            for work in (*done, *self._running)
            if work.essential and work.queue_s is not None and (work.ended_at or now) >= now - WAITS_S
        )
        return StageReport(
            self._replica,
            slots=self.slots,
            utilisation=self._share((work for work in everything if work.essential), start, now),
            load=self._share(everything, start, now),
            queue_s=waits_s[int(QUEUE_QUANTILE * (len(waits_s) - 1))] if waits_s else 0.0,
            first_s=_median([work.first_at - work.began_at for work in done if work.first_at is not None]),
            service_s=_mean([work.used_s for work in done]),
            tokens_per_s=_median([rate for work in done if (rate := _tokens_per_s(work))]),
            calls_before=self._mean_calls(now - WINDOW_S - CALLS_LAG_S, now - CALLS_LAG_S),
        )

    def _share(self, works: Iterable[Work], start: float, now: float) -> float:
        """Return the mean share of the slots that worked on these requests between `start` and `now`."""
        if not self.slots or now <= start:
            return 0.0
        return sum(work.busy_within(start, now) for work in works) / (now - start) / self.slots

    def _mean_calls(self, start: float, end: float) -> float:
        """Return the time-weighted mean of the number of live calls between two times. It is 0 before the first one."""
        total, until = 0.0, end
        for since, calls in reversed(self._calls):
            if since < until:
                total += calls * (until - max(since, start))
                until = max(since, start)
        return total / (end - start)


def _tokens_per_s(work: Work) -> float:
    """Return the rate at which an answer was written after its first token, 0 if it has fewer than two tokens."""
    if work.first_at is None or work.ended_at is None or work.tokens <= 1 or work.ended_at <= work.first_at:
        return 0.0
    return (work.tokens - 1) / (work.ended_at - work.first_at)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
