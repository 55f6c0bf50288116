"""Admission by the load of the stages: a call is admitted if all calls would still be answered in time.

Every stage replica reports its load with its answers (`stage_load.StageReport`). A host divides the load of a stage by
the number of calls, which gives the share of the stage that one call uses. From this it predicts the load with a
number of calls. The number of places is the largest number of calls for which all of this holds:

    utilisation   no stage uses more than `utilisation_limit` of its slots
    latency       the median turn stays within the limit of the latency tier. Without load it takes `base` seconds; the
                  rest of the measured median grows like the wait of a queue: in proportion to u / (1 - u) for the
                  utilisation u of the busiest stage
    growth        the number exceeds what was served in time before by one step only (`call_ceiling.CallCeiling`)

While a stage's requests wait longer than half of the turn's limit, or answers are written more slowly than they
are spoken, there are no more places than calls. Before the load of a call is known, there are `cold` places.

Measurements vary. So the number of places falls at once, but rises only if it has been at least RAISE_MARGIN higher
for RAISE_AFTER_S seconds. A call that ends frees its place at once.

Several hosts share the stages. Between two reports a host does not see the calls that the others admit. So each host
admits only its share of the free places, until the next report. The shares add up to the free places (`_Share`).
Before the first report, a host assumes the least number of hosts that the deployment has.

Nothing here has a clock: the methods take `now`, a monotonic time in seconds, which never decreases.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rejoinder.core.resilience.admission import MAX_RETRY_AFTER_S, AdmissionRefusal
from rejoinder.core.resilience.call_ceiling import CallCeiling, MeasuredTurn
from rejoinder.core.resilience.stage_load import WINDOW_S, StageReport
from rejoinder.core.settings.overload import AdmissionSettings

REPORT_TTL_S = 6.0
"""Seconds after which a report no longer counts. A stage that nobody uses sends none, so its last one must expire."""
TICK_S = 0.5
"""Seconds after which the number of places is calculated again without a new report."""
MAX_TICK_S = 1.0
"""Most seconds of load that one calculation adds to a stage's load of a call. It is known for the end of them only."""
MAX_REPORTS = 4096
"""Maximum number of reports that are kept, one per replica; the oldest are dropped."""
EVIDENCE_CALL_S = 30.0
"""Seconds of calls that must have been measured before the load of a call is known: the sum over all calls."""
MEMORY_CALL_S = 240.0
"""Seconds of calls from which the load of a call is averaged, but at least MEMORY_S. Some 30 turns vary by 20%."""
MEMORY_S = 2 * WINDOW_S
"""Least time in seconds from which the load of a call is averaged, with many calls."""
NEGLIGIBLE = 1e-9
"""Share of a stage that one call uses below which the stage does not limit the calls."""
FORGET_S = 600.0
"""Seconds without a report after which a stage's load of a call is forgotten. The deployment may have changed."""
RAISE_MARGIN = 1.05
"""Factor by which the number of places must grow to be raised. The measured load varies by less from tick to tick."""
RAISE_AFTER_S = 2.0
"""Seconds for which a higher number of places must last to be used. Refusals end within this time after an overload."""
SPOKEN_TOKENS_PER_S = 6.0
"""Tokens per second that a voice speaks at most: 16 characters per second (`playout.CHARACTERS_PER_S`) in English."""
YIELD_WAIT = 0.5
"""Share of the limit of the waits from which speculative work yields. A reply that begins early saves about 200 ms, so
with shorter waits the callers would lose more than they gain.
"""
YIELD_S = 5.0
"""Seconds for which speculative work yields after the load was last high, so that it does not start and stop often."""
SHARE_S = 1.0
"""Shortest time between two shares of the free places, in seconds. Meanwhile each host's calls send requests, from
which the replicas learn the numbers of calls that the reports contain.
"""
DEPARTURES_S = 60.0
"""Seconds of ended calls from which the rate at which places become free is taken."""
GOLDEN = (math.sqrt(5) - 1) / 2
"""Golden ratio: multiples of it, modulo 1, are spread evenly, so every host rounds its share up equally often."""

PIPELINE = ("stt", "llm", "tts")
"""The stages that a turn passes through one after another."""


@dataclass(frozen=True, slots=True)
class TierLimits:
    """Limits of the latency tier, in seconds.

    Attributes:
        turn_s: Limit of the median turn without the wait for its end.
        wait_s: Limit of the 90th percentile of the waits in one stage.
    """

    turn_s: float
    wait_s: float


@dataclass(frozen=True, slots=True)
class Places:
    """Number of calls for which the stages have capacity, on all hosts together.

    Attributes:
        number: The number of places. There may be more calls, if the stages became slower.
        limit: What limits the number.
        stage: The stage that limits the number, "" if it is not one stage.
    """

    number: float
    limit: AdmissionRefusal
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Refusal of a call: what has no capacity for it, and after how many seconds the caller should try again."""

    limit: AdmissionRefusal
    stage: str
    retry_after_s: float


_TEXTS = {
    AdmissionRefusal.UTILISATION: "{stage} has too few free slots for another call.",
    AdmissionRefusal.LATENCY: "With another call, the answers would take too long ({stage} is the busiest stage).",
    AdmissionRefusal.QUEUE: "Requests wait too long in {stage}.",
    AdmissionRefusal.SPEED: "{stage} writes answers more slowly than they are spoken.",
    AdmissionRefusal.GROWTH: "More calls than were ever answered in time.",
    AdmissionRefusal.COLD_START: "The first calls are still being measured.",
    AdmissionRefusal.SHARE: "This host has used its share of the free places.",
}


def describe(refused: Refused) -> str:
    """Return the reason of a refusal as a sentence, for the caller and the log."""
    return _TEXTS[refused.limit].format(stage=f"The stage {refused.stage}").replace(" The stage", " the stage")


@dataclass(frozen=True, slots=True)
class StageState:
    """Load of one stage, over its replicas with a report of the last REPORT_TTL_S seconds.

    Attributes:
        utilisation: Share of the slots that worked on requests that turns wait for.
        queue_s: 90th percentile of the waits, in seconds, averaged over the replicas.
        latency_s: Median time to the first output, wait included, in seconds.
        tokens_per_s: Median rate of one answer; 0 if no tokens were written.
        hosts: Number of hosts.
        other_calls: Live calls of the other hosts.
        calls_before: Mean number of live calls when the load began.
    """

    utilisation: float
    queue_s: float
    latency_s: float
    tokens_per_s: float
    hosts: int
    other_calls: int
    calls_before: float


def stage_state(reports: Iterable[StageReport]) -> StageState:
    """Return the state of a stage from the reports of its replicas. The replicas count by their number of slots."""
    found = list(reports)
    weights = [max(1, report.slots) for report in found]

    def mean(values: Iterable[float]) -> float:
        return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)

    writing = [report.tokens_per_s for report in found if report.tokens_per_s]
    return StageState(
        utilisation=mean(report.utilisation for report in found),
        queue_s=mean(report.queue_s for report in found),
        latency_s=mean(report.first_s + report.queue_s for report in found),
        tokens_per_s=sum(writing) / len(writing) if writing else 0.0,
        hosts=max(report.hosts for report in found),
        other_calls=max(report.other_calls for report in found),
        calls_before=max(report.calls_before for report in found),
    )


@dataclass(slots=True)
class _Demand:
    """Share of a stage's slots that one call uses: an average over the last MEMORY_CALL_S seconds of calls."""

    used: float = 0.0
    call_s: float = 0.0
    at: float = -math.inf

    def add(self, state: StageState, seconds: float, now: float) -> None:
        """Add `seconds` of load in this state."""
        self.used += state.utilisation * seconds
        self.call_s += state.calls_before * seconds
        self.at = now
        most = max(MEMORY_CALL_S, MEMORY_S * state.calls_before)
        if self.call_s > most:
            self.used *= most / self.call_s
            self.call_s = most

    @property
    def known(self) -> bool:
        """Whether enough has been measured."""
        return self.call_s >= EVIDENCE_CALL_S

    @property
    def per_call(self) -> float:
        """Share of the stage's slots that one call uses."""
        return self.used / self.call_s


class _Share:
    """A host's share of the free places, from one report to the next.

    With H hosts, a share is 1/H of the free places. It is rounded with the host's `phase`, a number in [0, 1) that
    differs between hosts and changes with each report. So the shares of all hosts add up to the number of free places,
    on average, and each host gets the odd places from time to time.
    """

    def __init__(self, phase: float) -> None:
        self._phase = phase
        self._left = 0
        self._renewed_at = -math.inf

    def renew(self, room: float, hosts: int, now: float, age_s: float) -> None:
        """Begin a new share of `room` free places, if the last one is at least `age_s` seconds old."""
        if now - self._renewed_at >= age_s:
            self._renewed_at = now
            self._phase = (self._phase + GOLDEN) % 1.0
            self._left = math.floor(max(0.0, room) / hosts + self._phase)

    def take(self) -> None:
        """Use one place of the share."""
        self._left -= 1

    @property
    def used_up(self) -> bool:
        """Whether no place of the share is left."""
        return self._left < 1


def _number(places: Places) -> float:
    return places.number


def _whole(number: float) -> float:
    """Return the whole calls in a predicted number, at least one: an idle system must be able to measure a call."""
    return max(1.0, math.floor(number + 1e-9) if math.isfinite(number) else number)


def cold_places(calls_per_slot: int, slots: Mapping[str, int]) -> int:
    """Return the number of calls on all hosts together before the load of a call is known.

    Args:
        calls_per_slot: Calls per slot of the stage with the fewest slots.
        slots: Slots of all replicas of each stage; 0 where the number is not known.
    """
    return calls_per_slot * min((slots[stage] for stage in PIPELINE if slots.get(stage)), default=1)


class StageAdmission:
    """Admission of one host's calls by the load of the stages. Not thread-safe.

    Call `note` for every report, `turn` for every answered turn, `tick` twice a second, `refusal` before a call is
    admitted, and `entered` and `left` for its begin and end.

    Attributes:
        live: Number of live calls of this host.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        tier: TierLimits,
        cold: int,
        retry_after_s: float,
        *,
        phase: float,
        hosts: int = 1,
    ) -> None:
        """Create the admission of a host.

        Args:
            settings: The limits.
            tier: The limits that must hold.
            cold: Number of places on all hosts together before the load of a call is known, see `cold_places`.
            retry_after_s: Least number of seconds after which a refused caller should try again.
            phase: Number in [0, 1) that differs between hosts, see `_Share`.
            hosts: Least number of hosts.
        """
        self.live = 0
        self._settings = settings
        self._tier = tier
        self._ceiling = CallCeiling(tier.turn_s, settings.growth)
        self._cold = cold
        self._least_hosts = hosts
        self._retry_after_s = retry_after_s
        self._reports: dict[tuple[str, str], tuple[float, StageReport]] = {}
        self._demands: dict[str, _Demand] = {}
        self._states: dict[str, StageState] = {}
        self._departures: deque[float] = deque(maxlen=1000)
        self._share = _Share(phase)
        self._reported = False
        self._places = Places(self._cold, AdmissionRefusal.COLD_START)
        self._higher: tuple[float, float] | None = None
        self._yields = False
        self._yields_until = -math.inf
        self._ticked_at = -math.inf

    @property
    def places(self) -> Places:
        """The number of places on all hosts together."""
        return self._places

    @property
    def states(self) -> Mapping[str, StageState]:
        """The state of each stage with a report of the last REPORT_TTL_S seconds, at the last tick."""
        return self._states

    @property
    def calls(self) -> int:
        """Number of live calls on all hosts, as far as this host knows."""
        return self.live + max((state.other_calls for state in self._states.values()), default=0)

    @property
    def hosts(self) -> int:
        """Number of hosts, as far as this host knows."""
        return max((state.hosts for state in self._states.values()), default=self._least_hosts)

    @property
    def yields(self) -> bool:
        """Whether speculative replies and interim transcripts make room for the work that turns wait for."""
        return self._settings.enabled and self._yields

    def note(self, stage: str, report: StageReport, now: float) -> None:
        """Record a report of a replica of a stage."""
        self._reports.pop((stage, report.replica), None)
        self._reports[stage, report.replica] = (now, report)
        if len(self._reports) > MAX_REPORTS:
            del self._reports[next(iter(self._reports))]
        self._reported = True

    def turn(self, seconds: float, now: float) -> None:
        """Record an answered turn that took `seconds`, without the wait for the end of the turn."""
        self._ceiling.note(MeasuredTurn(now, seconds, self.calls))

    def entered(self, now: float) -> None:
        """Record that a call was admitted."""
        self.live += 1
        self._share.take()

    def left(self, now: float) -> None:
        """Record that a call ended."""
        self.live -= 1
        self._departures.append(now)

    def refusal(self, now: float) -> Refused | None:
        """Return why a further call is refused, None if it may be admitted."""
        if not self._settings.enabled:
            return None
        self.tick(now)
        missing = self.calls + 1 - self._places.number
        if missing > 0:
            return Refused(self._places.limit, self._places.stage, self._retry_s(missing, now))
        if self.hosts > 1 and self._share.used_up:
            return Refused(AdmissionRefusal.SHARE, "", self._retry_after_s)
        return None

    def tick(self, now: float) -> None:
        """Calculate the number of places, if a report came since the last time, or TICK_S seconds have passed."""
        seconds = now - self._ticked_at
        if not self._reported and seconds < TICK_S:
            return
        self._ticked_at = now
        self._collect(min(seconds, MAX_TICK_S), now)
        self._publish(self._predict(now), now)
        self._update_yield(now)
        if self._reported or not self._states:
            # If no replica reports, nobody knows the calls of the other hosts. The calls since then take some seconds
            # to cause reports, so the next share comes later.
            age_s = SHARE_S if self._reported else REPORT_TTL_S
            self._share.renew(self._places.number - self.calls, self.hosts, now, age_s)
        self._reported = False

    def _collect(self, seconds: float, now: float) -> None:
        """Update the stages' states and the load of a call. `seconds` is the time since the last update."""
        stale = [key for key, (at, _) in self._reports.items() if now - at > REPORT_TTL_S]
        for key in stale:
            del self._reports[key]
        by_stage: dict[str, list[StageReport]] = {}
        for (stage, _), (_, report) in self._reports.items():
            by_stage.setdefault(stage, []).append(report)
        self._states = {stage: stage_state(reports) for stage, reports in by_stage.items()}
        for stage, state in self._states.items():
            self._demands.setdefault(stage, _Demand()).add(state, seconds, now)
        self._demands = {stage: demand for stage, demand in self._demands.items() if now - demand.at <= FORGET_S}
        while self._departures and self._departures[0] < now - DEPARTURES_S:
            self._departures.popleft()

    def _predict(self, now: float) -> Places:
        """Return the number of places that the measurements give, without hysteresis."""
        beyond = list(self._beyond())
        self._ceiling.start(self._cold)
        if not any(demand.known for demand in self._demands.values()):
            return min((Places(self._cold, AdmissionRefusal.COLD_START), *beyond), key=_number)
        self._ceiling.judge(self.calls, now, beyond=bool(beyond))
        ceiling = Places(self._ceiling.number, AdmissionRefusal.GROWTH)
        return min((ceiling, *beyond, *self._by_utilisation(), *self._by_latency(now)), key=_number)

    def _by_utilisation(self) -> Iterable[Places]:
        for stage, demand in self._demands.items():
            if demand.known and demand.per_call > NEGLIGIBLE:
                number = self._settings.utilisation_limit / demand.per_call
                yield Places(_whole(number), AdmissionRefusal.UTILISATION, stage)

    def _by_latency(self, now: float) -> Iterable[Places]:
        """Yield the number of calls with which the predicted median latency reaches its limit."""
        median_s, base_s = self._ceiling.median_s(self.calls, now), self._ceiling.base_s
        busiest = max(self._states, key=lambda stage: self._states[stage].utilisation, default=None)
        if median_s is None or busiest is None or base_s == math.inf or median_s <= base_s:
            return
        state = self._states[busiest]
        used = min(max(state.utilisation, 0.01), 0.99)
        growth = (self._ceiling.limit_s - base_s) / (median_s - base_s) * used / (1 - used)
        yield Places(_whole(self.calls * growth / (1 + growth) / used), AdmissionRefusal.LATENCY, busiest)

    def _beyond(self) -> Iterable[Places]:
        """Yield the present number of calls for each stage that is beyond a limit now, so that no call is added."""
        for stage, state in self._states.items():
            if state.utilisation > self._settings.utilisation_limit:
                yield Places(self.calls, AdmissionRefusal.UTILISATION, stage)
            if state.queue_s > self._tier.wait_s:
                yield Places(self.calls, AdmissionRefusal.QUEUE, stage)
            if 0 < state.tokens_per_s < SPOKEN_TOKENS_PER_S:
                yield Places(self.calls, AdmissionRefusal.SPEED, stage)

    def _publish(self, found: Places, now: float) -> None:
        """Take over a lower number at once, and a higher one if it has lasted."""
        cold = AdmissionRefusal.COLD_START in (found.limit, self._places.limit)
        if cold or found.number <= self._places.number:
            self._places, self._higher = found, None
            return
        if found.number < self._places.number * RAISE_MARGIN:
            self._higher = None
            return
        since, least = self._higher or (now, found.number)
        self._higher = (since, min(least, found.number))
        if now - since >= RAISE_AFTER_S:
            self._places, self._higher = Places(self._higher[1], found.limit, found.stage), None

    def _update_yield(self, now: float) -> None:
        limit = self._settings.yield_utilisation
        loaded = any(
            state.utilisation >= limit or state.queue_s >= YIELD_WAIT * self._tier.wait_s
            for state in self._states.values()
        )
        if loaded:
            self._yields_until = now + YIELD_S
        self._yields = now < self._yields_until

    def _retry_s(self, missing: float, now: float) -> float:
        """Return after how many seconds `missing` places should be free, at the rate at which calls ended recently."""
        if not self._departures or now <= self._departures[0]:
            return self._retry_after_s
        rate = len(self._departures) / (now - self._departures[0])
        return min(MAX_RETRY_AFTER_S, max(self._retry_after_s, missing / rate))
