"""Tests of emulated service times: the configured distributions, and the published profiles."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.core.errors import ConfigError
from rejoinder.core.measuring.service_curves import PROFILES, STACKS, ServiceCurve, ServiceSampler, profiles
from rejoinder.core.settings.settings import EmulationSettings, parse_settings


def draws(curve: ServiceCurve, count: int, concurrent: int = 1, seed: int = 7) -> list[float]:
    service = ServiceSampler(curve, random.Random(seed).random)
    return [service.next_s(concurrent) * 1000 for _ in range(count)]


def test_a_fixed_curve_takes_its_median_every_time() -> None:
    """If the curve's sigma is 0, every request takes exactly the median service time."""
    assert set(draws(ServiceCurve(120), 50)) == {120.0}


def test_a_log_normal_curve_has_its_median_and_spread() -> None:
    """Of 20,000 drawn times, the median is within 2% and the deviation of the logarithm within 3% of the curve's."""
    times_ms = draws(ServiceCurve(300, sigma=0.4), 20_000)
    assert statistics.median(times_ms) == pytest.approx(300, rel=0.02)
    assert statistics.stdev(math.log(value) for value in times_ms) == pytest.approx(0.4, rel=0.03)


def test_published_median_and_p95_are_reproduced() -> None:
    """The profile of Deepgram reproduces the published median within 1% and the published p95 within 2%."""
    times_ms = sorted(draws(PROFILES["deepgram-nova-3-stt"].curve, 20_000))
    assert times_ms[10_000] == pytest.approx(247, rel=0.01)
    assert times_ms[19_000] == pytest.approx(298, rel=0.02)


@given(st.integers(1, 64))
def test_load_slows_a_service_by_the_fitted_curve(streams: int) -> None:
    """With n concurrent streams, NVIDIA's published speech to text takes 38.6 + 4.56 log2 n ms."""
    (times_ms,) = draws(PROFILES["nvidia-h100-stt"].curve, 1, streams)
    assert times_ms == pytest.approx(38.6 + 4.56 * math.log2(streams))


@given(st.sampled_from([0.01, 0.02, 0.05, 0.2, 0.5]), st.integers(0, 1000))
def test_stalls_are_stratified(share: float, seed: int) -> None:
    """If a share of requests stalls, exactly one in each block of 1/share requests takes 2 to 8 s longer."""
    block = round(1 / share)
    times_ms = draws(ServiceCurve(100, stall_share=share), block * 4, seed=seed)
    for start in range(0, len(times_ms), block):
        stalled = [value for value in times_ms[start : start + block] if value > 100]
        assert len(stalled) == 1
        assert 2100 <= stalled[0] <= 8100


def test_the_same_seed_draws_the_same_times() -> None:
    """Two samplers with the same seed draw the same times."""
    curve = ServiceCurve(100, sigma=0.5, stall_share=0.1)
    assert draws(curve, 100) == draws(curve, 100) != draws(curve, 100, seed=8)


@pytest.mark.parametrize(
    ("emulation", "field"),
    [
        ({"curve": {"median_ms": -1}}, "median_ms"),
        ({"curve": {"sigma": math.inf}}, "sigma"),
        ({"curve": {"stall_share": 0.9}}, "stall_share"),
        ({"curve": {"stall_min_ms": 9000}}, "stall_min_ms"),
        ({"curve": {"speed": 3}}, "speed"),
        ({"profile": "guide-500-tts"}, "guide-500-stt"),
        ({"slots": -1}, "slots"),
    ],
)
def test_an_invalid_emulation_is_rejected_by_name(emulation: dict[str, object], field: str) -> None:
    """The error names the invalid field. For an unknown profile it lists the known ones."""
    with pytest.raises(ConfigError, match=field):
        parse_settings({"stt": {"engine": "emulated", "emulation": emulation}})


def test_every_profile_names_its_source_and_resolves() -> None:
    """Every profile has a source. Configured slots and speeds replace the published ones."""
    for name, profile in PROFILES.items():
        assert len(profile.source) > 20
        assert name in profiles(profile.stage)
        assert EmulationSettings(profile=name).resolve(profile.stage).curve == profile.curve
    own = EmulationSettings(profile="cosyvoice2-l20-tts", slots=3, speed=2).resolve("tts")
    assert (own.slots, own.speed) == (3, 2)


def test_every_stack_is_complete() -> None:
    """Each stack, a named set of profiles, has one profile for each of the stages stt, llm and tts."""
    for stack in STACKS.values():
        assert {stage: PROFILES[name].stage for stage, name in stack.items()} == {
            "stt": "stt",
            "llm": "llm",
            "tts": "tts",
        }
