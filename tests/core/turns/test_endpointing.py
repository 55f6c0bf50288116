"""Tests of the silence in seconds that ends a turn, as a function of the probability that the turn is over."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.settings.settings import EndpointingSettings
from rejoinder.core.turns.end_of_turn import EndOfTurnTable
from rejoinder.core.turns.endpointing import (
    MAX_WAIT_S,
    DetectionMode,
    EndpointRule,
    PauseStats,
    TurnDetection,
    endpoint_silence_s,
)

TABLE = EndOfTurnTable(thresholds=((0.001, 0.9), (0.01, 0.8), (0.03, 0.7), (0.3, 0.4)))
RULE = EndpointRule(EndpointingSettings(), TABLE)

probabilities = st.floats(0, 1)
pauses = st.builds(PauseStats, st.integers(0, 9), st.floats(0, 9), st.floats(0, 1.6))
detections = st.sampled_from([TurnDetection(eagerness=eagerness) for eagerness in MAX_WAIT_S])


@st.composite
def rules(draw: st.DrawFn) -> EndpointRule:
    least, one, other, most = sorted(draw(st.lists(st.floats(1, 2000), min_size=4, max_size=4)))
    fallback, patience = draw(st.permutations([one, other]))
    chosen = EndpointingSettings(
        cut_off_budget=draw(st.floats(0.001, 0.3)),
        min_silence_ms=least,
        fallback_silence_ms=fallback,
        patience_ms=patience,
        max_silence_ms=most,
    )
    return EndpointRule(chosen, TABLE)


@pytest.mark.parametrize(
    ("probability", "expected_s"),
    [
        (None, 1.0),
        (math.nan, 1.0),
        (1.0, 0.1),
        (0.7, 0.1),
        (0.699, 1.1),
        (0.35, 1.1),
        (0.175, 1.55),
        (0.0, 2.0),
        (1.7, 0.1),
        (-1, 2.0),
    ],
)
def test_the_default_rule(probability: float | None, expected_s: float) -> None:
    """From the threshold on (0.7, at the default `cut_off_budget` of 3%), 100 ms of silence end the turn.

    Down to half of the threshold 1.1 s do; below, the silence grows to 2 s. Without a probability it is 1 s.
    """
    assert endpoint_silence_s(TurnDetection(), RULE, probability) == pytest.approx(expected_s, abs=0.001)


@pytest.mark.parametrize("eagerness", ["low", "medium", "auto"])
def test_an_uncertain_end_outlasts_a_pause_of_a_second(eagerness: str) -> None:
    """Except with eagerness high, a turn that is not certainly over is not ended by a pause of 1 s.

    The silence must exceed 1.064 s, because resumed speech is noticed 64 ms after it begins.
    """
    assert endpoint_silence_s(TurnDetection(eagerness=eagerness), RULE, 0.65) > 1.064


def test_low_eagerness_outlasts_all_usual_pauses() -> None:
    """With eagerness low, a pause of 1.5 s ends no turn that is not certainly over."""
    assert endpoint_silence_s(TurnDetection(eagerness="low"), RULE, 0.75) > 1.564


def test_eagerness_selects_the_budget() -> None:
    """A probability of 0.72 ends the turn at once with eagerness auto and high, but not with medium and low."""
    soon = {name: endpoint_silence_s(TurnDetection(eagerness=name), RULE, 0.72) < 0.2 for name in MAX_WAIT_S}
    assert soon == {"low": False, "medium": False, "auto": True, "high": True}


def test_a_long_pause_of_the_caller_gives_more_time() -> None:
    """After a pause of 1.4 s in this call, an uncertain end waits longer than that, up to the longest silence."""
    patient = PauseStats().with_pause(1.4)
    assert 1.464 < endpoint_silence_s(TurnDetection(), RULE, 0.65, patient) <= 2.0
    assert endpoint_silence_s(TurnDetection(), RULE, 0.9, patient) == pytest.approx(0.1)


def test_a_very_long_silence_is_no_usual_pause() -> None:
    """A silence of 5 s in the middle of a turn does not make every later turn wait longer."""
    assert PauseStats().with_pause(0.5).with_pause(5.0) == PauseStats(2, 5.5, 0.5)


@given(rules(), detections, st.tuples(probabilities, probabilities), pauses)
def test_a_higher_probability_never_waits_longer(
    rule: EndpointRule, detection: TurnDetection, between: tuple[float, float], stats: PauseStats
) -> None:
    """For every eagerness and history of pauses, a higher probability never requires a longer silence."""
    low, high = sorted(between)
    later, sooner = (endpoint_silence_s(detection, rule, probability, stats) for probability in (low, high))
    assert sooner <= later + 1e-12


@given(rules(), detections, st.none() | probabilities, pauses)
def test_no_silence_is_longer_than_the_eagerness_allows(
    rule: EndpointRule, detection: TurnDetection, probability: float | None, stats: PauseStats
) -> None:
    """The silence is never longer than the eagerness allows. With auto it is within the operator's limits too."""
    silence_s = endpoint_silence_s(detection, rule, probability, stats)
    assert 0 <= silence_s <= MAX_WAIT_S[detection.eagerness] + 1e-12
    if detection.eagerness == "auto":
        assert rule.settings.min_silence_ms / 1000 - 1e-12 <= silence_s
        assert silence_s <= rule.settings.max_silence_ms / 1000 + 1e-12


@given(rules(), st.none() | probabilities, pauses)
def test_more_eager_never_waits_longer(rule: EndpointRule, probability: float | None, stats: PauseStats) -> None:
    """For every probability, a higher eagerness never requires a longer silence. Auto has the operator's limit too."""
    by_name = [
        endpoint_silence_s(TurnDetection(eagerness=name), rule, probability, stats)
        for name in ("high", "medium", "low")
    ]
    assert by_name == sorted(by_name)


@given(st.integers(0, 20_000), st.none() | probabilities)
def test_server_vad_waits_exactly_the_configured_silence(silence_ms: int, probability: float | None) -> None:
    """With server_vad, the required silence is the client's `silence_duration_ms`, whatever the probability."""
    detection = TurnDetection(DetectionMode.SERVER_VAD, silence_duration_ms=silence_ms)
    assert endpoint_silence_s(detection, RULE, probability) == silence_ms / 1000


def test_without_turn_detection_silence_never_ends_a_turn() -> None:
    """With turn detection off, the required silence is infinite: only the client ends a turn."""
    assert endpoint_silence_s(TurnDetection(DetectionMode.NONE), RULE, 1.0) == math.inf


@pytest.mark.parametrize(
    ("probability", "decided"), [(None, False), (0.69, False), (0.7, True)], ids=["unknown", "below", "at"]
)
def test_a_probability_at_the_threshold_is_decided(probability: float | None, decided: bool) -> None:
    """`decided` is True if the probability of the end of the turn is known and reaches the threshold, here 0.7."""
    assert RULE.decided(TurnDetection(), probability) is decided
