"""Emulated service times: the distribution that was asked for, and what was published."""

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
    """Sigma 0 draws nothing."""
    assert set(draws(ServiceCurve(120), 50)) == {120.0}


def test_a_log_normal_curve_has_the_median_and_spread_that_were_asked_for() -> None:
    """20,000 draws: median within 2%, the logarithm's deviation within 3%."""
    taken = draws(ServiceCurve(300, sigma=0.4), 20_000)
    assert statistics.median(taken) == pytest.approx(300, rel=0.02)
    assert statistics.stdev(math.log(value) for value in taken) == pytest.approx(0.4, rel=0.03)


def test_published_median_and_p95_are_reproduced() -> None:
    """A profile fitted to a published row gives that row's two figures."""
    taken = sorted(draws(PROFILES["deepgram-nova-3-stt"].curve, 20_000))
    assert taken[10_000] == pytest.approx(247, rel=0.01)
    assert taken[19_000] == pytest.approx(298, rel=0.02)


@given(st.integers(1, 64))
def test_load_slows_a_service_as_the_fit_says(streams: int) -> None:
    """NVIDIA's fit of the speech to text of nemotron-voice-agent, 38.6 + 4.56 log2 n."""
    (taken,) = draws(PROFILES["nvidia-h100-stt"].curve, 1, streams)
    assert taken == pytest.approx(38.6 + 4.56 * math.log2(streams))


@given(st.sampled_from([0.01, 0.02, 0.05, 0.2, 0.5]), st.integers(0, 1000))
def test_stalls_are_stratified(share: float, seed: int) -> None:
    """Every block of 1/share requests has exactly one stall, between its bounds."""
    block = round(1 / share)
    taken = draws(ServiceCurve(100, stall_share=share), block * 4, seed=seed)
    for start in range(0, len(taken), block):
        stalled = [value for value in taken[start : start + block] if value > 100]
        assert len(stalled) == 1
        assert 2100 <= stalled[0] <= 8100


def test_the_same_seed_draws_the_same_times() -> None:
    """A run can be repeated."""
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
def test_a_bad_emulation_is_refused_by_name(emulation: dict[str, object], field: str) -> None:
    """The error names the field, or for an unknown profile those that there are."""
    with pytest.raises(ConfigError, match=field):
        parse_settings({"stt": {"engine": "emulated", "emulation": emulation}})


def test_every_profile_names_its_source_and_resolves() -> None:
    """No figure without a publisher; slots and paces of one's own replace the published."""
    for name, profile in PROFILES.items():
        assert len(profile.source) > 20
        assert name in profiles(profile.stage)
        assert EmulationSettings(profile=name).resolve(profile.stage).curve == profile.curve
    own = EmulationSettings(profile="cosyvoice2-l20-tts", slots=3, speed=2).resolve("tts")
    assert (own.slots, own.speed) == (3, 2)


def test_every_stack_is_whole() -> None:
    """A stack names one profile of each emulated stage."""
    for stack in STACKS.values():
        assert {stage: PROFILES[name].stage for stage, name in stack.items()} == {
            "stt": "stt",
            "llm": "llm",
            "tts": "tts",
        }
