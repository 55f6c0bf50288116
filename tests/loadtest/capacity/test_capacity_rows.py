"""Validation rows: the arithmetic of errors and noise, and the networks of emulated configurations."""

from __future__ import annotations

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
    """Percentiles on a straight line cross the limit exactly where the line does, inside or outside the loads."""
    sessions = (10, 20, 30)
    p95 = [start + slope * n for n in sessions]
    assert crossing(sessions, p95, limit) == pytest.approx((limit - start) / slope, rel=1e-6, abs=1e-6)


def test_the_crossing_follows_the_bend() -> None:
    """Between two loads, the crossing lies on the line between these two, not on a line through all loads."""
    assert crossing((10, 20, 30), (1000, 1200, 3000), 2100) == pytest.approx(25)
    assert crossing((10, 20, 30), (1000, 900, 1900), 1400) == pytest.approx(25)


def test_no_knee_without_a_rise() -> None:
    """Percentiles that fall with load raise ValueError instead of giving a knee."""
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
    """Errors are relative to the mean of the repeats, and noise is half their range. A predicted 20 counts as 20.5."""
    found = measured((1700, 2300), (1900, 2100))
    assert found.knee == pytest.approx(20)
    assert found.knees == pytest.approx((20, 20))
    assert found.knee_error == pytest.approx(20.5 / 20 - 1)
    assert found.p95_errors == pytest.approx((0, 0))
    assert found.p95_noise == pytest.approx(100 / 1800)
    assert found.knee_noise == pytest.approx(0)
    assert found.holds


def test_a_repeats_knee_is_the_common_line_shifted() -> None:
    """If p95 grows by 100 ms per session, a repeat that is 100 ms above the mean has a knee of one session less."""
    found = measured((1900, 2300), (1700, 2100))
    assert found.knee == pytest.approx(20)
    assert found.knees == pytest.approx((19, 21))
    assert found.knee_noise == pytest.approx(1 / 20)


@pytest.mark.parametrize("p95", [(2000.0, 2400.0), (1300.0, 1700.0)])
def test_a_wrong_prediction_does_not_hold(p95: tuple[float, float]) -> None:
    """A prediction fails if the error of its knee exceeds 10% or the error of its 95th percentile exceeds 25%."""
    assert not measured(p95).holds


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_every_row_is_a_configuration(name: str) -> None:
    """Each row has valid settings that differ from the base. Its stages have the settings' replicas and slots."""
    changed = settings_of(BASE, row(name).changes)
    base = settings_of(BASE, {})
    assert changed != base
    for stage_name in STAGES:
        found = emulated_stage(changed, stage_name)
        section = getattr(changed, stage_name)
        assert (found.replicas, found.slots) == (section.autoscaling.max_replicas, section.emulation.slots)


def test_an_answer_is_segmented_like_in_the_host() -> None:
    """The first segment is complete at the burst of its fifth word, and the audio has the length of the text."""
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
    """A stage with a real engine raises ConfigError with the field: its settings do not contain its service times."""
    with pytest.raises(ConfigError, match=r"args\.stt\.engine"):
        emulated_stage(parse_settings({}), "stt")
