"""Tests of the admission by the load of the stages: the decision on reports, without replicas."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rejoinder.core.resilience.admission import MAX_RETRY_AFTER_S, AdmissionRefusal
from rejoinder.core.resilience.call_ceiling import ENOUGH_TURNS
from rejoinder.core.resilience.stage_admission import (
    RAISE_AFTER_S,
    REPORT_TTL_S,
    SPOKEN_TOKENS_PER_S,
    YIELD_S,
    StageAdmission,
    TierLimits,
    cold_places,
    describe,
)
from rejoinder.core.resilience.stage_load import StageReport
from rejoinder.core.settings.overload import AdmissionSettings

TIER = TierLimits(0.6, 0.3)
STAGES = ("stt", "llm", "tts")
RETRY_S = 5.0


def opened(*, phase: float = 0.0, **other: float) -> StageAdmission:
    """Return an admission whose stages have one slot each. `other` has settings."""
    settings = AdmissionSettings.model_validate(other)
    return StageAdmission(settings, TIER, settings.cold_start_calls, RETRY_S, phase=phase)


def report(utilisation: float, calls: float, **other: Any) -> StageReport:
    """Return a report of a replica with one slot. `calls` is the number of calls that led to the utilisation."""
    idle = StageReport("r", slots=1, utilisation=0, load=0, queue_s=0, first_s=0.1, service_s=0.1)
    return replace(idle, utilisation=utilisation, load=utilisation, calls_before=calls, **other)


def told(admission: StageAdmission, given: StageReport, seconds: float, start: float) -> float:
    """Give the same report twice a second for some time, with turns in time. Return the time of the last one."""
    now = start
    for step in range(round(2 * seconds)):
        now = start + step / 2
        admission.note("stt", given, now)
        for _ in range(3):
            admission.turn(0.3, now)
        admission.tick(now)
    return now


def filled(admission: StageAdmission, now: float, most: int = 1000) -> int:
    """Admit calls until one is refused, at most `most`. Return the number of admitted calls."""
    for count in range(most):
        if admission.refusal(now):
            return count
        admission.entered(now)
    return most


def with_calls(admission: StageAdmission, number: int) -> StageAdmission:
    """Let `number` calls in, whatever the admission says."""
    for _ in range(number):
        admission.entered(0.0)
    return admission


def test_the_fewest_slots_give_the_places_before_a_measurement() -> None:
    """There are `cold_start_calls` per slot of the stage with the fewest. Stages that calls do not wait for are left
    out, and those with an unknown number of slots too.
    """
    assert cold_places(4, {"stt": 3, "llm": 0, "tts": 2, "turn_detector": 1}) == 8
    assert cold_places(4, {"llm": 0}) == 4


def test_hosts_share_the_places_before_a_measurement() -> None:
    """A crowd that comes to a cold cluster of 30 hosts gets the places of the cluster once, not once per host.

    While no replica reports, each host gets another share after REPORT_TTL_S seconds, of the places that its own calls
    leave free. So an idle cluster never refuses for lack of reports.
    """
    admissions = [
        StageAdmission(AdmissionSettings(), TIER, 90, RETRY_S, phase=index / 30, hosts=30) for index in range(30)
    ]
    assert [filled(admission, 0.0) for admission in admissions] == [3] * 30
    refusal = admissions[0].refusal(1.0)
    assert refusal is not None
    assert refusal.limit is AdmissionRefusal.SHARE
    for _ in range(3):
        admissions[0].left(1.0)
    assert filled(admissions[0], REPORT_TTL_S + 0.5) == 3


def test_a_cold_host_admits_the_stated_number() -> None:
    """Without a report, a single host admits all places of a cold cluster, then refuses."""
    admission = StageAdmission(AdmissionSettings(), TIER, 8, RETRY_S, phase=0.0)
    assert filled(admission, 0.0) == 8
    refusal = admission.refusal(0.0)
    assert refusal is not None
    assert (refusal.limit, refusal.retry_after_s) == (AdmissionRefusal.COLD_START, RETRY_S)


def test_a_disabled_admission_admits_all() -> None:
    """With `enabled` off, no call is refused and nothing yields."""
    admission = opened(enabled=False)
    told(admission, report(1.5, 4), 20, 0.0)
    assert filled(admission, 30.0, 100) == 100
    assert not admission.yields


def test_the_slots_of_the_busiest_stage_are_the_limit() -> None:
    """If 4 calls use 0.4 of a stage, 8 calls use 0.8 of it: the ninth is refused, with the stage's name."""
    admission = with_calls(opened(growth=10), 4)
    now = told(admission, report(0.4, 4), 30, 0.0)
    assert filled(admission, now) == 4
    refusal = admission.refusal(now)
    assert refusal is not None
    assert (refusal.limit, refusal.stage) == (AdmissionRefusal.UTILISATION, "stt")
    assert "stt" in describe(refusal)


def test_the_number_grows_by_steps_that_were_measured() -> None:
    """With hardly any load, 4 calls in time lead to 5 places, not to as many as the slots would allow."""
    admission = with_calls(opened(growth=1.25), 4)
    now = told(admission, report(0.01, 4), 30, 0.0)
    assert filled(admission, now) == 1
    refusal = admission.refusal(now)
    assert refusal is not None
    assert refusal.limit is AdmissionRefusal.GROWTH


@pytest.mark.parametrize(
    ("beyond", "limit"),
    [
        ({"queue_s": 0.4}, AdmissionRefusal.QUEUE),
        ({"tokens_per_s": SPOKEN_TOKENS_PER_S - 1}, AdmissionRefusal.SPEED),
    ],
)
def test_a_stage_that_is_late_now_admits_nobody(beyond: dict[str, float], limit: AdmissionRefusal) -> None:
    """While requests wait longer than the tier's limit, or answers are written too slowly, no call is admitted.

    As soon as a report says that it is over, calls are admitted again within RAISE_AFTER_S.
    """
    admission = with_calls(opened(), 2)
    now = told(admission, report(0.1, 2), 30, 0.0)
    admission.note("stt", report(0.1, 2, **beyond), now + 0.1)
    refusal = admission.refusal(now + 0.1)
    assert refusal is not None
    assert refusal.limit is limit
    now = told(admission, report(0.1, 2), RAISE_AFTER_S + 1, now + 0.5)
    assert admission.refusal(now) is None


def test_late_turns_refuse_a_call() -> None:
    """If the median turn approaches the limit of the tier, calls are refused although the slots are free."""
    admission = with_calls(opened(), 4)
    now = told(admission, report(0.3, 4), 10, 0.0)
    for _ in range(40):
        now += 0.25
        admission.note("stt", report(0.3, 4), now)
        admission.turn(0.65, now)
    refusal = admission.refusal(now)
    assert refusal is not None
    assert refusal.limit in {AdmissionRefusal.LATENCY, AdmissionRefusal.GROWTH}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STAGES), st.floats(0, 2), st.integers(0, 20)), max_size=30),
    st.sampled_from(STAGES),
    st.floats(0.801, 3),
    st.integers(0, 20),
)
def test_no_call_is_admitted_while_a_stage_is_beyond_its_limit(
    history: list[tuple[str, float, int]], stage: str, utilisation: float, calls: int
) -> None:
    """Whatever was reported before, no call is admitted after a report above `utilisation_limit`."""
    admission = with_calls(opened(), calls)
    now = 0.0
    for told_stage, used, before in history:
        now += 0.5
        admission.note(told_stage, report(used, before), now)
        admission.turn(0.3, now)
        if admission.refusal(now) is None:
            admission.entered(now)
    admission.note(stage, report(utilisation, max(1, calls)), now)
    assert admission.refusal(now) is not None


@settings(deadline=None)
@given(st.floats(0.9, 3), st.integers(2, 20))
def test_it_recovers_once_the_load_falls(utilisation: float, calls: int) -> None:
    """10 s after the last call has left an overloaded stage, a call is admitted again, also without any report."""
    admission = with_calls(opened(), calls)
    now = told(admission, report(utilisation, calls), 30, 0.0)
    assert admission.refusal(now) is not None
    for _ in range(calls):
        admission.left(now)
    for step in range(1, 21):
        admission.tick(now + step / 2)
    assert admission.refusal(now + 10.0) is None


@settings(deadline=None)
@given(st.lists(st.floats(0.97, 1.03), min_size=60, max_size=60), st.integers(5, 40))
def test_noise_does_not_make_it_flap(noise: list[float], calls: int) -> None:
    """While the load varies by 3% around a constant value, the number of places is not raised and lowered in turn."""
    admission = with_calls(opened(), calls)
    now = told(admission, report(0.6, calls), 60, 0.0)
    numbers = []
    for factor in noise:
        now += 0.5
        admission.note("stt", report(0.6 * factor, calls), now)
        for _ in range(3):
            admission.turn(0.3, now)
        admission.tick(now)
        numbers.append(admission.places.number)
    rises = sum(later > earlier for earlier, later in pairwise(numbers))
    assert rises <= 1


@settings(deadline=None)
@given(st.floats(0, 2), st.floats(0, 2), st.integers(1, 30))
def test_more_load_never_gives_more_places(one: float, other: float, calls: int) -> None:
    """Of two hosts with the same calls, the one whose stage is more loaded has no more places."""
    places = []
    for utilisation in sorted((one, other)):
        admission = with_calls(opened(), calls)
        told(admission, report(utilisation, calls), 30, 0.0)
        places.append(admission.places.number)
    assert places[0] >= places[1]


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(0, 200), st.integers(0, 1000))
def test_the_shares_of_the_hosts_add_up_to_the_free_places(hosts: int, room: int, seed: int) -> None:
    """Hosts that see the same report admit together about as many calls as places are free, before the next report."""
    admitted = 0
    calls = 400
    for number in range(hosts):
        admission = opened(phase=((number + seed / 1000) / hosts) % 1.0, growth=10)
        given_report = report(0.8 * calls / (calls + room), calls, hosts=hosts, other_calls=calls)
        now = told(admission, given_report, 30, 0.0)
        admitted += filled(admission, now)
    assert admitted <= room + hosts / 2 + 1


def test_speculative_work_yields_before_a_call_is_refused() -> None:
    """At `yield_utilisation`, speculative work yields while calls are still admitted. It goes on after YIELD_S."""
    admission = with_calls(opened(), 6)
    now = told(admission, report(0.62, 6), 20, 0.0)
    assert admission.yields
    assert admission.refusal(now) is None
    now = told(admission, report(0.3, 6), YIELD_S + 1, now + 0.5)
    assert not admission.yields


def test_a_wait_makes_speculative_work_yield() -> None:
    """If requests wait for 160 ms, half of their limit and more, speculative work yields at any utilisation.

    With a wait of 100 ms it does not, because it saves more than that.
    """
    for queue_s, yields in ((0.1, False), (0.16, True)):
        admission = opened()
        admission.note("tts", report(0.1, 1, queue_s=queue_s), 0.0)
        admission.tick(0.0)
        assert admission.yields == yields


def test_retry_after_is_the_time_until_a_place_is_free() -> None:
    """If a call ended every 10 s, a refused caller should try again after 10 s. With 100 callers too many, the hint is
    MAX_RETRY_AFTER_S.
    """
    admission = with_calls(opened(), 10)
    now = told(admission, report(0.8, 10), 20, 0.0)
    for step in range(3):
        admission.left(now + 10 * step)
        admission.entered(now + 10 * step)
    now = told(admission, report(0.8, 10), 1, now + 30)
    refusal = admission.refusal(now)
    assert refusal is not None
    assert 8 <= refusal.retry_after_s <= 13
    for _ in range(100):
        admission.entered(now)
    crowded = admission.refusal(now)
    assert crowded is not None
    assert crowded.retry_after_s == MAX_RETRY_AFTER_S


def test_a_stale_report_expires() -> None:
    """REPORT_TTL_S after its last report a stage has no state, so its last wait does not refuse calls for good."""
    admission = opened()
    admission.note("stt", report(0.1, 1, queue_s=5.0), 0.0)
    assert admission.refusal(0.0) is not None
    assert admission.refusal(REPORT_TTL_S + 1) is None
    assert admission.states == {}


def test_enough_turns_are_fewer_than_a_minute_of_five_calls() -> None:
    """Five calls with a turn every 8 s measure a number of calls within a minute."""
    assert ENOUGH_TURNS / 5 * 8 < 60
