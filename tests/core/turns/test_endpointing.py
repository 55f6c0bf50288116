"""Tests of the silence in seconds that ends a turn, as a function of the probability that the turn is over."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.settings.settings import EndpointingSettings
from rejoinder.core.turns.endpointing import MAX_WAIT_S, DetectionMode, PauseStats, TurnDetection, endpoint_silence_s

probabilities = st.floats(0, 1)
waits = st.lists(st.floats(1, 2000), min_size=3, max_size=3).map(sorted)
thresholds = st.floats(0, 1)
detections = st.sampled_from([TurnDetection(eagerness=eagerness) for eagerness in MAX_WAIT_S])


@st.composite
def settings(draw: st.DrawFn) -> EndpointingSettings:
    least, fallback, most = draw(waits)
    return EndpointingSettings(
        min_silence_ms=least,
        fallback_silence_ms=fallback,
        max_silence_ms=most,
        complete_threshold=draw(thresholds),
    )


@pytest.mark.parametrize(
    ("probability", "expected_s"),
    [
        (None, 0.5),
        (math.nan, 0.5),
        (0.0, 2.0),
        (0.15, 1.227),
        (0.3, 0.453),
        (0.9, 0.292),
        (0.98, 0.1),
        (1.7, 0.1),
        (-1, 2),
    ],
)
def test_passes_through_the_configured_points(probability: float | None, expected_s: float) -> None:
    """With default settings the required silence is 2 s at probability 0, 0.453 s at 0.3 and 0.1 s from 0.98 on.

    These are the maximum, the value at `complete_threshold` and the minimum. Without a probability (None or NaN) it is
    the fallback of 0.5 s. Probabilities below 0 or above 1 count as 0 or 1.
    """
    assert endpoint_silence_s(TurnDetection(), EndpointingSettings(), probability) == pytest.approx(
        expected_s, abs=0.001
    )


@given(probability=st.floats(0.3, 0.97), pauses=st.lists(st.floats(0.05, 3.0), max_size=20))
def test_the_budget_is_kept(probability: float, pauses: list[float]) -> None:
    """The probability that a pause is taken for the end of the turn equals the configured `cut_off_budget`.

    It is lower only if the minimum silence is longer than the budget requires. The caller's pauses are assumed to
    follow a Rayleigh distribution with their mean so far.
    """
    pauses_so_far = PauseStats()
    for seconds in pauses:
        pauses_so_far = pauses_so_far.with_pause(seconds)
    rules = EndpointingSettings(max_silence_ms=60_000)
    wait = endpoint_silence_s(TurnDetection(eagerness="low"), rules, probability, pauses_so_far)
    mean_s = pauses_so_far.mean_s(rules.pause_ms / 1000)
    cut = (1 - probability) * math.exp(-math.pi / 4 * (wait / mean_s) ** 2)
    if wait < 8.0:
        assert cut <= rules.cut_off_budget * (1 + 1e-9)
    if rules.min_silence_ms / 1000 < wait < 8.0:
        assert cut == pytest.approx(rules.cut_off_budget)


@given(probabilities, st.floats(0.3, 3.0))
def test_long_pauses_lengthen_the_silence(probability: float, pause_s: float) -> None:
    """After two pauses of 0.3 to 3 s, the required silence is not shorter than before any pause.

    Such pauses are longer than the mean of 0.22 s that is assumed before the first pause.
    """
    rules = EndpointingSettings()
    long_s = endpoint_silence_s(
        TurnDetection(), rules, probability, PauseStats().with_pause(pause_s).with_pause(pause_s)
    )
    assert long_s >= endpoint_silence_s(TurnDetection(), rules, probability, PauseStats()) - 1e-12


@given(settings(), probabilities, probabilities)
def test_falls_with_the_probability(chosen: EndpointingSettings, one: float, other: float) -> None:
    """A higher probability never requires a longer silence."""
    low, high = sorted((one, other))
    assert endpoint_silence_s(TurnDetection(), chosen, high) <= endpoint_silence_s(TurnDetection(), chosen, low) + 1e-12


@given(settings(), probabilities)
def test_stays_within_the_configured_bounds(chosen: EndpointingSettings, probability: float) -> None:
    """For every probability, the required silence lies between the configured minimum and maximum."""
    wait = endpoint_silence_s(TurnDetection(), chosen, probability)
    assert chosen.min_silence_ms / 1000 - 1e-12 <= wait <= chosen.max_silence_ms / 1000 + 1e-12


@given(st.integers(0, 20_000), st.none() | probabilities)
def test_server_vad_waits_exactly_the_configured_silence(silence_ms: int, probability: float | None) -> None:
    """With server_vad, the required silence is the client's `silence_duration_ms`, whatever the probability."""
    detection = TurnDetection(DetectionMode.SERVER_VAD, silence_duration_ms=silence_ms)
    assert endpoint_silence_s(detection, EndpointingSettings(), probability) == silence_ms / 1000


def test_without_turn_detection_silence_never_ends_a_turn() -> None:
    """With turn detection off, the required silence is infinite: only the client ends a turn."""
    assert endpoint_silence_s(TurnDetection(DetectionMode.NONE), EndpointingSettings(), 1.0) == math.inf


@pytest.mark.parametrize(("eagerness", "longest_s"), [("low", 8), ("medium", 4), ("high", 2), ("auto", 2)])
def test_eagerness_sets_the_longest_silence(eagerness: str, longest_s: float) -> None:
    """At probability 0 the required silence is 8, 4 or 2 s with eagerness low, medium or high.

    With eagerness auto it is the configured maximum, here 2 s.
    """
    assert endpoint_silence_s(TurnDetection(eagerness=eagerness), EndpointingSettings(), 0.0) == longest_s


def test_auto_is_capped_like_medium() -> None:
    """With eagerness auto, the silence is at most the 4 s of the OpenAI Realtime reference, whatever is configured."""
    assert endpoint_silence_s(TurnDetection(), EndpointingSettings(max_silence_ms=9000), 0.0) == 4.0


@given(detections, settings(), probabilities, probabilities)
def test_semantic_vad_is_monotone_and_bounded(
    detection: TurnDetection, chosen: EndpointingSettings, one: float, other: float
) -> None:
    """For every eagerness, a higher probability requires no longer silence, and the eagerness's maximum is kept."""
    low, high = sorted((one, other))
    assert endpoint_silence_s(detection, chosen, high) <= endpoint_silence_s(detection, chosen, low) + 1e-12
    assert 0 <= endpoint_silence_s(detection, chosen, low) <= MAX_WAIT_S[detection.eagerness] + 1e-12
    assert endpoint_silence_s(detection, chosen, None) <= MAX_WAIT_S[detection.eagerness]


@given(settings(), st.none() | probabilities)
def test_more_eager_never_waits_longer(chosen: EndpointingSettings, probability: float | None) -> None:
    """For every probability, a higher eagerness never requires a longer silence."""
    by_name = [
        endpoint_silence_s(replace(TurnDetection(), eagerness=name), chosen, probability)
        for name in ("high", "medium", "low")
    ]
    assert by_name == sorted(by_name)
