"""Tests of the validation rows. A row is one emulated configuration whose predicted latencies and knee are measured.

The knee is the number of sessions at which the p95 latency reaches the limit. The tests check errors, noise and the
simulated networks.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.emulated import WORDS
from loadtest.capacity.capacity_rows import BASE, ROWS, Measured, Predicted, Repeat, crossing, row, settings_of
from loadtest.capacity.emulated_network import emulated_reply, emulated_stage
from loadtest.capacity.network_fit import STAGES
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import parse_settings


@given(st.floats(0.1, 100), st.floats(1, 500), st.floats(1, 3000))
def test_the_crossing_of_a_line_is_exact(slope: float, start: float, limit: float) -> None:
    """If the p95 latencies at three loads are on a straight line, `crossing` returns where that line reaches the limit.

    This number of sessions may be outside the measured loads.
    """
    sessions = (10, 20, 30)
    p95 = [start + slope * n for n in sessions]
    assert crossing(sessions, p95, limit) == pytest.approx((limit - start) / slope, rel=1e-6, abs=1e-6)


def test_the_crossing_follows_the_bend() -> None:
    """If the limit is reached between two loads, only the p95 latencies at these two loads determine the crossing."""
    assert crossing((10, 20, 30), (1000, 1200, 3000), 2100) == pytest.approx(25)
    assert crossing((10, 20, 30), (1000, 900, 1900), 1400) == pytest.approx(25)


def test_no_knee_without_a_rise() -> None:
    """If the p95 latency falls with load, `crossing` raises ValueError instead of returning a knee."""
    with pytest.raises(ValueError, match="no knee"):
        crossing((10, 20), (1000, 900), 2000)


def measured(*p95: tuple[float, float]) -> Measured:
    predicted = Predicted(
        "r",
        what="what",
        limit_ms=2000,
        knee=20,
        sessions=(18, 22),
        p50_ms=(1000, 1500),
        p95_ms=(1800, 2200),
        turns_per_s=(3, 3),
        bottleneck="stt",
    )
    return Measured(predicted, tuple(Repeat((900, 1400), pair, (90, 90), 25) for pair in p95))


def test_errors_and_noise_of_a_row() -> None:
    """The errors of a row (one configuration) are relative to the mean of its repeated measurements.

    Its noise is half of the range of these measurements, relative to their mean. A predicted knee of 20 counts as 20.5,
    because the prediction is the largest whole number within the limit.
    """
    found = measured((1700, 2300), (1900, 2100))
    assert found.knee == pytest.approx(20)
    assert found.knees == pytest.approx((20, 20))
    assert found.knee_error == pytest.approx(20.5 / 20 - 1)
    assert found.p95_errors == pytest.approx((0, 0))
    assert found.p95_noise == pytest.approx(100 / 1800)
    assert found.knee_noise == pytest.approx(0)
    assert found.holds


def test_a_repeats_knee_is_the_common_line_shifted() -> None:
    """If a measurement's p95 latencies are above the mean of all repeats by 100 ms, its knee is one session less.

    Below the mean by 100 ms, it is one session more. The p95 latency grows by 100 ms per session.
    """
    found = measured((1900, 2300), (1700, 2100))
    assert found.knee == pytest.approx(20)
    assert found.knees == pytest.approx((19, 21))
    assert found.knee_noise == pytest.approx(1 / 20)


ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("p95", [(2000.0, 2400.0), (1300.0, 1700.0)])
def test_a_wrong_prediction_does_not_hold(p95: tuple[float, float]) -> None:
    """A prediction of 1800 and 2200 ms p95 at two loads does not hold if both measured p95 differ too much.

    They are 200 ms higher or 500 ms lower.
    """
    assert not measured(p95).holds


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_every_row_is_a_configuration(name: str) -> None:
    """Each row to validate has valid settings that differ from the calibrated configuration `BASE`.

    The simulated stages have the replicas and slots of these settings.
    """
    changed = settings_of(BASE, row(name).changes)
    base = settings_of(BASE, {})
    assert changed != base
    for stage_name in STAGES:
        found = emulated_stage(changed, stage_name)
        section = getattr(changed, stage_name)
        assert (found.replicas, found.slots) == (section.autoscaling.max_replicas, section.emulation.slots)


def test_a_row_is_measured_without_what_the_simulated_network_lacks() -> None:
    """Fillers, degradation and admission by the stages are off, even if an old calibration does not mention them."""
    stored = json.loads((ROOT / "docs/results/capacity/calibration.json").read_text())["settings"]
    for base in (BASE, stored):
        settings = settings_of(base, {})
        assert (settings.degradation.enabled, settings.admission.enabled) == (False, False)
        assert settings.conversation.filler_after_ms == 0


def test_an_answer_is_segmented_like_in_the_host() -> None:
    """In the simulated reply, the first segment has five words and is complete after 0.04 s at 100 tokens per second.

    The audio lasts one second per 15 characters, and later segments are complete later.
    """
    emulated = {"engine": "emulated", "emulation": {"tokens": 24, "tokens_per_s": 100}}
    settings = parse_settings({"llm": emulated, "tts": {"engine": "emulated"}})
    found = emulated_reply(settings, WORDS)
    text = " ".join(WORDS[:24])
    assert found.segments[0][0] == pytest.approx(0.04)
    assert found.segments[0][1] == pytest.approx(len(" ".join(WORDS[:5])) / 15)
    assert found.audio_s == pytest.approx((len(text) - len(found.segments) + 1) / 15)
    assert found.generation_s == pytest.approx(0.23)
    assert [ready for ready, _ in found.segments] == sorted(ready for ready, _ in found.segments)


def test_only_emulated_stages_have_a_network() -> None:
    """For a stage with a real engine, `emulated_stage` raises ConfigError that names the field of the engine.

    The settings of a real engine do not contain its service times.
    """
    with pytest.raises(ConfigError, match=r"args\.stt\.engine"):
        emulated_stage(parse_settings({}), "stt")
